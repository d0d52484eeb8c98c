"""Each family's training against a loop over diffusers' UNet with peft's LoRA layers: losses and LoRA, in float64."""

from __future__ import annotations

from typing import Any

import peft
import pytest
import reference
import steps
import tiny
import torch
import written_out
from families import MAIN, Scene, relative

STEPS, RATE, DECAY, RANK = 4, 1e-3, 1e-2, 4
FACTOR = {"sd15": 0.18215, "sd21": 0.18215, "sdxl": 0.13025}
"""Of latents, as the families' publishers name them."""


@pytest.fixture(params=MAIN)
def scene(request, pack, seed):
    return Scene(pack, request.param, seed)


def adapted(scene):
    """diffusers' UNet in float64 with peft's LoRA layers, its first weights those of the pack's, by name of module."""
    train, host = scene.pack.core.training, scene.pack.host.training.private_copy
    config = train.config.TrainConfig(rank=RANK, alpha=RANK, seed=scene.seed)
    first = train.layers.extract(train.layers.adapt(host.private_unet(scene.model, torch.float32), config))
    unet = reference.in_float64(scene.unet).requires_grad_(False)
    settings = peft.LoraConfig(r=RANK, lora_alpha=RANK, target_modules=r".*\.attn[12]\.to_[qkv]")
    peft.inject_adapter_in_model(settings, unet)
    for path, name in host.module_names(scene.model).items():
        if path in first:
            layer = unet.get_submodule(name)
            layer.lora_A["default"].weight.data = first[path].down.double()
            layer.lora_B["default"].weight.data = first[path].up.double()
    return unet


def trained(scene, unet, z0):
    """Losses of AdamW on the noise or the velocity; drawn as the pack does: picture, posterior, noise, timestep."""
    parameters = [p.requires_grad_() for name, p in unet.named_parameters() if ".lora_" in name]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, betas=(0.9, 0.999), weight_decay=DECAY)
    generator, losses = torch.Generator().manual_seed(scene.seed), []
    abar = torch.tensor(reference.cumulative_alphas(scene.family.zsnr), dtype=torch.float64)
    for _ in range(STEPS):
        torch.randint(0, 1, (1,), generator=generator)
        torch.randn(z0.shape, generator=generator)
        noise = torch.randn(z0.shape, generator=generator).double()
        t = int(torch.randint(0, 1000, (1,), generator=generator))
        a, b = abar[t] ** 0.5, (1 - abar[t]) ** 0.5
        target = a * noise - b * z0 if scene.family.velocity else noise
        told = scene.told[1]._replace(sizes=(64, 64, 0, 0, 64, 64) if scene.told[1].sizes else ())
        loss = (written_out.predict(unet, a * z0 + b * noise, t, [told]) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def state_of(unet) -> dict[str, torch.Tensor]:
    """The LoRA under kohya's names."""
    state: dict[str, Any] = {}
    for name, module in unet.named_modules():
        if isinstance(module, peft.tuners.lora.LoraLayer):
            key = "lora_unet_" + name.replace(".", "_")
            state[f"{key}.lora_down.weight"] = module.lora_A["default"].weight.detach()
            state[f"{key}.lora_up.weight"] = module.lora_B["default"].weight.detach()
    return state


def differences(ours, theirs, part=""):
    """Of every weight of the LoRA, over the root mean square of them all."""
    keys = [key for key in theirs if part in key]
    a, b = (torch.cat([state[key].double().flatten() for key in keys]) for state in (ours, theirs))
    return (a - b).abs() / b.square().mean().sqrt()


def test_training(scene, measured):
    """AdamW divides each gradient by its own size, so a weight whose gradient is nearly 0 goes by its rounding.

    So nine tenths of the weights are compared, and what the UNet predicts with all of them.
    """
    vae, picture = tiny.make_vae(), torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(scene.seed))
    settings = {"rank": RANK, "alpha": float(RANK), "steps": STEPS, "learning_rate": RATE, "weight_decay": DECAY}
    ours, losses, _ = steps.train(
        scene.pack, scene.model, vae, picture, scene.prompt(1), seed=scene.seed, save=False, **settings
    )
    z0 = vae.encode(picture).double() * FACTOR[scene.family.kind]
    with torch.inference_mode(False), torch.enable_grad():
        unet = adapted(scene)
        theirs = trained(scene, unet, z0.clone())
        state = state_of(unet)
    off = max(abs(a / b - 1) for a, b in zip(losses["loss"], theirs, strict=True))
    measured("losses against the loop, relative", off, at_most=1e-5)
    assert set(state) == {key for key in ours if not key.endswith(".alpha")}
    for part in ("lora_down", "lora_up"):
        most = differences(ours, state, part).quantile(0.9).item()
        measured(f"{part}, nine tenths of it, relative", most, at_most=3e-4)
    measured("the whole LoRA, relative", differences(ours, state).square().mean().sqrt().item(), at_most=1e-2)
    plain, with_ours, with_theirs = (
        written_out.predict(made, scene.z.double(), 500, [scene.told[1]])
        for made in (scene.double, written_out.merged(scene.double, ours), written_out.merged(scene.double, state))
    )
    measured("prediction with the LoRA, relative", relative(with_ours, with_theirs), at_most=5e-5)
    measured("what the LoRA changes, relative", relative(with_theirs, plain), at_least=1e-3)
