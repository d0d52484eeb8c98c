"""Every style its own capture and windows: the method's original wiring, against loops written out over diffusers.

There each style's content run is that of its own LoRA's UNet, and eqs. 4 to 8 are applied branch by branch.
"""

from __future__ import annotations

import pytest
import reference
import steps
import tiny
import torch
import written_out

SIZE = 8
LAYERS = {"sd21": ("4", "4-11"), "small": ("1", "2-3")}
"""Per model: feature layers and attention layers."""


def masks_of(outside, generator):
    """Two soft masks at latent size: covering all, or leaving a rest."""
    ramp = torch.linspace(0, 1, SIZE, dtype=torch.float64).repeat(SIZE, 1)
    ramp = (ramp * 3 - 1).clamp(0, 1)
    whole = torch.ones(SIZE, SIZE, dtype=torch.float64)
    if outside != "covered":
        whole[:2], whole[2] = 0.0, 0.4
    return [m.float().double() for m in (ramp * whole, (1 - ramp) * whole)]


def pixels(mask):
    return mask.float().repeat_interleave(8, 0).repeat_interleave(8, 1)[None]


@pytest.mark.parametrize(
    ("kind", "count", "outside"),
    [("sd21", 10, "covered"), ("sd21", 10, "regenerate"), ("sd21", 10, "content"), ("small", 50, "content")],
)
def test_two_styles_with_captures_and_plans_of_their_own(pack, seed, measured, kind, count, outside):
    """Style 1: features 60 %, attention 50 % fixed. Style 2: features in all steps, content rate min(1, 2 t / 1000)."""
    generator = torch.Generator().manual_seed(seed)
    unet, model = reference.pair(kind, seed, damping=0.5)
    source, positive, negative, *prompts = (tiny.make_prompt(seed + i) for i in range(5))
    latent = tiny.make_latent(seed, SIZE)
    loras = [steps.random_lora(pack, model, seed + 10 + i, size=0.3) for i in range(2)]
    trajectory, *_ = steps.invert(pack, model, latent, source, steps=count)
    feature, attention = LAYERS[kind]
    masks = masks_of(outside, generator)
    windows = [(0.6, 0.5, "fixed"), (1.0, 0.5, "adaptive")]
    captures = [
        steps.capture(
            pack, model, trajectory, source, feature_layers=feature, self_attention_layers=attention,
            feature_steps=count, attention_steps=count, lora=lora,
        )
        for lora in loras
    ]  # fmt: skip
    settings = [steps.injection(pack, *window[:2], attention_mode=window[2]) for window in windows]
    chain = zip(loras, prompts, masks, captures, settings, strict=True)
    styles = steps.chain(
        pack,
        *(
            {"lora": o, "positive": p, "mask": pixels(m), "features": c, "injection": s}
            for o, p, m, c, s in chain
        ),
    )  # fmt: skip
    ours = steps.sample(
        pack, model, captures[0], positive, negative, cfg=3.0, styles=styles,
        outside="regenerate" if outside == "regenerate" else "content",
    )  # fmt: skip
    ours = model.model.process_latent_in(ours).double()

    double = reference.in_float64(unet)
    takings = [
        lambda step, t: written_out.Taking(step < 0.6 * count, float(step < 0.5 * count)),
        lambda step, t: written_out.Taking(True, min(1.0, 2 * t / 1000)),
    ]
    told = [written_out.Prompt(p[0][0]) for p in (source, positive, negative, *prompts)]
    rows = [
        written_out.Row(lambda step, unet=unet: unet, prompt, taking, mask, unet)
        for unet, prompt, taking, mask in zip(
            [written_out.merged(double, lora) for lora in loras], told[3:], takings, masks, strict=True
        )
    ]
    sites = written_out.Sites(*map(pack.core.injection.sites.parse_layers, LAYERS[kind]))
    path, timesteps = trajectory.latents, trajectory.schedule.timesteps
    loop = written_out.Written(path, timesteps, sites, double, 3.0)
    theirs = loop.run(rows, told[0], told[2], outside, told[1])
    error = ((ours - theirs).norm() / theirs.norm()).item()
    measured(f"{kind}, {count} steps, {outside}: relative to the loop", error, at_most=1e-5)

    shared = steps.chain(
        pack, *({"lora": o, "positive": p, "mask": pixels(m)} for o, p, m in zip(loras, prompts, masks, strict=True))
    )
    one = steps.sample(pack, model, captures[0], positive, negative, cfg=3.0, styles=shared, injection=settings[0])
    apart = ((model.model.process_latent_in(one).double() - theirs).norm() / theirs.norm()).item()
    measured("one capture and one plan for both, relative", apart, at_least=1e-3)
