"""Each family's injection, regions and switch against loops written out over diffusers' UNet in float64."""

from __future__ import annotations

import pytest
import steps
import torch
import written_out
from families import HEIGHT, MAIN, WIDTH, Scene, relative

BOUND = 1e-5


@pytest.fixture(params=MAIN)
def scene(request, pack, seed):
    return Scene(pack, request.param, seed)


def taking(scene, feature_steps=2, attention_steps=2, blend="qk"):
    """What a style takes of the content at (step, t), adaptive: eq. 5 with T = 1000 and T_a where the steps end."""
    start = 1000 * (1 - attention_steps / scene.schedule.steps)

    def of(step, t):
        kappa = 0.0 if step < attention_steps else min(max((start - t) / (1000 - start), 0.0), 1.0)
        return written_out.Taking(step < feature_steps, 1 - kappa, blend)

    return of


@pytest.mark.parametrize("name", MAIN)
def test_injection(pack, seed, measured, name):
    """The windows of the 2026 paper over ten steps, with a LoRA: features in 60 %, attention in 50 %, then blended."""
    scene = Scene(pack, name, seed, count=10)
    features, lora = scene.captured(), scene.lora(0)
    unet = written_out.merged(scene.double, lora)
    blends = {
        blend: scene.sample(features, lora=lora, feature_steps=6, attention_steps=5, blend=blend)
        for blend in ("qk", "map")
    }
    for blend, ours in blends.items():
        theirs = scene.one_style(features.trajectory.latents, lambda step: unet, taking(scene, 6, 5, blend))
        measured(f"{blend} against the loop, relative", relative(ours, theirs), at_most=BOUND)
    apart = relative(blends["qk"], blends["map"])
    measured("between the two blends, relative", apart, at_least=10 * BOUND)


def masks():
    """Two soft masks [h, w] at latent size that meet in the middle and leave the upper rows."""
    ramp = (torch.linspace(-1, 2, WIDTH).clamp(0, 1)).expand(HEIGHT, WIDTH)
    reach = torch.ones(HEIGHT, 1)
    reach[:2], reach[2] = 0.0, 0.4
    return [ramp * reach, (1 - ramp) * reach]


def pixels(mask):
    return mask.repeat_interleave(8, 0).repeat_interleave(8, 1)[None]


@pytest.mark.parametrize("outside", ["content", "regenerate"])
def test_regions(scene, measured, outside):
    """Two styles, each its LoRA and prompt: the content outside at every step (eq. 7), or the base's own (eq. 8)."""
    features, loras = scene.captured(), [scene.lora(i) for i in range(2)]
    unets = [written_out.merged(scene.double, lora) for lora in loras]
    rows = [
        written_out.Row(lambda step, unet=unet: unet, scene.told[3 + i], taking(scene), mask.double())
        for i, (unet, mask) in enumerate(zip(unets, masks(), strict=True))
    ]
    loop = scene.written(features.trajectory.latents)
    theirs = loop.run(rows, scene.told[0], scene.told[2], outside, scene.told[1])
    chain = [
        {"lora": lora, "positive": scene.prompt(3 + i), "mask": pixels(mask)}
        for i, (lora, mask) in enumerate(zip(loras, masks(), strict=True))
    ]
    ours = scene.sample(features, styles=steps.chain(scene.pack, *chain), outside=outside)
    measured("against the loop, relative", relative(ours, theirs), at_most=BOUND)
    swapped = [{**style, "lora": lora} for style, lora in zip(chain, reversed(loras), strict=True)]
    other = scene.sample(features, styles=steps.chain(scene.pack, *swapped), outside=outside)
    measured("with the LoRAs exchanged, relative", relative(other, theirs), at_least=100 * BOUND)


def switched(scene, *turns):
    """LORA_SCHEDULE of (LoRA, strength, start, end), start and end as shares of the run."""
    made = {}
    for lora, strength, start, end in turns:
        made = scene.pack.pipeline.switch.LoraSwitch.execute(
            lora=lora, strength=strength, start_percent=start, end_percent=end, ramp_in_percent=0.0,
            ramp_out_percent=0.0, name="", **({"previous": made} if made else {}),
        ).args[0]  # fmt: skip
    return made


def test_switch(scene, measured):
    """One LoRA for the first step, none at the second, another at half strength from there (eq. 9), all injected."""
    features, loras = scene.captured(), [scene.lora(i) for i in range(2)]
    first, last = written_out.merged(scene.double, loras[0]), written_out.merged(scene.double, loras[1], 0.5)
    unets = [first, scene.double, last, last]
    theirs = scene.one_style(features.trajectory.latents, unets.__getitem__, taking(scene))
    turns = (loras[0], 1.0, 0.0, 0.25), (loras[1], 0.5, 0.5, 1.0)
    ours = scene.sample(features, lora=switched(scene, *turns))
    measured("against the loop, relative", relative(ours, theirs), at_most=BOUND)
    late = scene.sample(features, lora=switched(scene, (loras[0], 1.0, 0.0, 0.5), turns[1]))
    measured("with a turn a step longer, relative", relative(late, theirs), at_least=100 * BOUND)
