"""Every style its own capture and windows: the method's original wiring, against loops written out over diffusers.

There each style's content run is that of its own LoRA's UNet, and eqs. 4 to 8 are applied branch by branch.
"""

from __future__ import annotations

import copy

import diffusers
import pytest
import reference
import steps
import tiny
import torch

SIZE = 8
LAYERS = {"sd21": ("4", "4-11", 3), "small": ("1", "2-3", 2)}
"""Per model: feature layers, attention layers, and decoder layers per block."""


def merged(unet, lora):
    """diffusers' UNet with a kohya LoRA added to its weights (alpha = rank)."""
    out = copy.deepcopy(unet)
    for name, module in out.named_modules():
        key = "lora_unet_" + name.replace(".", "_")
        if f"{key}.lora_up.weight" in lora:
            up, down = (lora[f"{key}.lora_{part}.weight"].double() for part in ("up", "down"))
            module.weight.data += (up @ down).to(module.weight)
    return out


class Sites:
    """The modules of diffusers' UNet that stand for the captured sites."""

    def __init__(self, unet, kind: str) -> None:
        feature, attention, per_block = LAYERS[kind]
        first, last = map(int, attention.split("-"))
        up = [unet.up_blocks[layer // per_block] for layer in range(last + 1)]
        self.features = [up[int(feature)].resnets[int(feature) % per_block].conv2]
        blocks = [up[i].attentions[i % per_block].transformer_blocks[0].attn1 for i in range(first, last + 1)]
        self.attention = [projection for block in blocks for projection in (block.to_q, block.to_k)]

    def hooked(self, feature, attention):
        """Forward hooks that replace what the modules put out."""
        pairs = [(m, feature) for m in self.features] + [(m, attention) for m in self.attention]
        return [m.register_forward_hook(lambda mod, args, out, f=f: f(mod, out)) for m, f in pairs if f is not None]


def evaluate(unet, z, t, prompt, handles=()):
    """The UNet's output; the hooks go afterwards."""
    try:
        return unet(z, torch.tensor(t), encoder_hidden_states=prompt).sample
    finally:
        for handle in handles:
            handle.remove()


def captured(unet, kind, z, t, prompt):
    """module -> what it puts out in the content's own run."""
    sites, taken = Sites(unet, kind), {}
    keep = lambda module, out: taken.__setitem__(module, out)  # noqa: E731
    evaluate(unet, z, t, prompt, sites.hooked(keep, keep))
    return taken


def injected(unet, kind, z, t, prompt, taken, features, rate):
    """The UNet's output with the content's features (all or none) and q, k at a content rate in [0, 1]."""

    def override(module, out):
        return taken[module].expand_as(out)

    def blended(module, out):
        return rate * taken[module] + (1 - rate) * out

    hooks = Sites(unet, kind).hooked(override if features else None, blended if rate else None)
    return evaluate(unet, z, t, prompt, hooks)


class Original:
    """The loop, in double precision. rows: per style its UNet, prompt, and features and content rate at (step, t)."""

    def __init__(self, kind, trajectory, source, negative, cfg, base, base_prompt) -> None:
        self.kind, self.cfg, self.base, self.base_prompt = kind, cfg, base, base_prompt.double()
        self.path = [z.double() for z in trajectory.latents]
        self.source, self.negative = source.double(), negative.double()
        self.ddim = reference.scheduler(diffusers.DDIMScheduler, trajectory.schedule.steps)

    def guided(self, call, prompt):
        without, wanted = call(self.negative), call(prompt.double())
        return without + self.cfg * (wanted - without)

    def run(self, rows, masks, outside):
        z, rest = self.path[0], 1 - sum(masks)
        inside = sum(masks)
        for step, t in enumerate(self.ddim.timesteps.tolist()):
            if outside == "content":
                z = inside * z + (1 - inside) * self.path[step]
            eps = torch.zeros_like(z)
            for (unet, prompt, features, rate), mask in zip(rows, masks, strict=True):
                taken = captured(unet, self.kind, self.path[step], t, self.source)
                injecting = features(step), rate(step, t)

                def call(p, unet=unet, taken=taken, injecting=injecting, z=z, t=t):
                    return injected(unet, self.kind, z, t, p, taken, *injecting)

                own = self.guided(call, prompt)
                share = torch.where(inside > 0, mask / inside.clamp(min=1e-30), 0.0) if outside == "content" else mask
                eps = eps + share * own
            if outside == "regenerate":
                eps = eps + rest * self.guided(lambda p, z=z, t=t: evaluate(self.base, z, t, p), self.base_prompt)
            z = self.ddim.step(eps, t, z).prev_sample
        return inside * z + (1 - inside) * self.path[-1] if outside == "content" else z


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


@pytest.mark.parametrize("outside", ["covered", "regenerate", "content"])
@pytest.mark.parametrize(("kind", "count"), [("sd21", 10), ("small", 50)])
def test_two_styles_with_captures_and_plans_of_their_own(pack, seed, measured, kind, count, outside):
    """Style 1: features 60 %, attention 50 % fixed. Style 2: features in all steps, content rate min(1, 2 t / 1000)."""
    generator = torch.Generator().manual_seed(seed)
    unet, model = reference.pair(kind, seed, damping=0.5)
    source, positive, negative, *prompts = (tiny.make_prompt(seed + i) for i in range(5))
    latent = tiny.make_latent(seed, SIZE)
    loras = [steps.random_lora(pack, model, seed + 10 + i, size=0.3) for i in range(2)]
    trajectory, *_ = steps.invert(pack, model, latent, source, steps=count)
    feature, attention, _ = LAYERS[kind]
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
    rows = [
        (merged(double, loras[0]), prompts[0][0][0], lambda i: i < 0.6 * count, lambda i, t: float(i < 0.5 * count)),
        (merged(double, loras[1]), prompts[1][0][0], lambda i: True, lambda i, t: min(1.0, 2 * t / 1000)),
    ]
    original = Original(kind, trajectory, source[0][0], negative[0][0], 3.0, double, positive[0][0])
    theirs = original.run(rows, masks, outside)
    error = ((ours - theirs).norm() / theirs.norm()).item()
    measured(f"{kind}, {count} steps, {outside}: relative to the loop", error, at_most=1e-5)

    shared = steps.chain(
        pack, *({"lora": o, "positive": p, "mask": pixels(m)} for o, p, m in zip(loras, prompts, masks, strict=True))
    )
    one = steps.sample(pack, model, captures[0], positive, negative, cfg=3.0, styles=shared, injection=settings[0])
    apart = ((model.model.process_latent_in(one).double() - theirs).norm() / theirs.norm()).item()
    measured("one capture and one plan for both, relative", apart, at_least=1e-3)
