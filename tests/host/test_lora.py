"""LoRAs in the forward pass against merged weights; exported files through the host's own loader against peft."""

from __future__ import annotations

import copy

import comfy.model_management
import comfy.utils
import pytest
import steps
import tiny
import torch

import nodes as host_nodes


def inputs(kind: str, seed: int, rows: int = 2):
    generator = torch.Generator().manual_seed(seed)
    extra = {"y": torch.randn(rows, 1568, generator=generator)} if kind == "sdxl" else {}
    context = torch.randn(rows, 77, 32, generator=generator)
    return torch.randn(rows, 4, 16, 16, generator=generator), torch.tensor([981.0, 21.0]), {"context": context, **extra}


def merged(pack, model, lora: dict, strength: float):
    """A copy of the UNet with W + strength alpha / rank up down in its weights, computed in double precision."""
    unet = copy.deepcopy(model.model.diffusion_model)
    names = pack.host.training.private_copy.module_names(model)
    count = 0
    for path, name in names.items():
        key = "lora_unet_" + name.replace(".", "_")
        if f"{key}.alpha" not in lora:
            continue
        down, up = (lora[f"{key}.lora_{part}.weight"].double() for part in ("down", "up"))
        weight = unet.get_submodule(path).weight
        change = (up @ down) * (lora[f"{key}.alpha"].item() / down.shape[0])
        weight.copy_(weight.double() + strength * change)
        count += 1
    assert count == len(lora) // 3
    return unet


@pytest.mark.parametrize("kind", ["sd15", "sd21", "sdxl"])
@pytest.mark.parametrize("strength", [1.0, -0.6])
def test_forward_lora_is_a_lora_in_the_weights(pack, seed, measured, kind, strength):
    model = tiny.make_model(kind, seed=seed)
    lora = steps.random_lora(pack, model, seed, size=0.3)
    x, t, extra = inputs(kind, seed)
    unet = model.model.diffusion_model
    base = unet(x, t, **extra)
    forward = pack.host.lora.adapters.ForwardLora(model, lora, strength)
    with pack.host.lora.forwards.Forwards().on(unet, [forward]):
        ours = unet(x, t, **extra)
    theirs = merged(pack, model, lora, strength)(x, t, **extra)
    assert (theirs - base).abs().max() > 0.01
    assert torch.equal(unet(x, t, **extra), base)
    measured("eps of the forward-pass LoRA against merged weights", (ours - theirs).abs().max().item(), at_most=1e-4)


@pytest.mark.parametrize("kind", ["sd15", "sd21", "sdxl"])
@pytest.mark.parametrize("targets", [("to_q", "to_k", "to_v"), ("to_q", "to_k", "to_v", "to_out.0")])
def test_exported_lora_through_the_hosts_loader_is_the_peft_model(pack, seed, measured, host_folders, kind, targets):
    model = tiny.make_model(kind, seed=seed)
    config = pack.core.training.config.TrainConfig(rank=4, alpha=8.0, seed=seed, targets=targets)
    x, t, extra = inputs(kind, seed)
    with torch.inference_mode(False), torch.no_grad():
        private = pack.host.training.private_copy.private_unet(model, torch.float32)
        layers = pack.core.training.layers.adapt(private, config)
        generator = torch.Generator().manual_seed(seed)
        for layer in layers.values():
            up = layer.lora_B["default"].weight
            up.copy_(0.05 * torch.randn(up.shape, generator=generator))
        theirs = private(x.clone(), t.clone(), **{k: v.clone() for k, v in extra.items()})
        extracted = pack.core.training.layers.extract(layers)
    names = pack.host.training.private_copy.module_names(model)
    state = pack.core.lora.file.kohya_state(extracted, names, config.alpha)
    pack.core.lora.file.save_lora(host_folders / "loras" / "style.safetensors", state, {})
    loaded, _ = host_nodes.LoraLoader().load_lora(model, None, "style.safetensors", 1.0, 0.0)
    attentions = {path.rsplit(".", 1)[0] for path in names if ".attn" in path and path.endswith(".to_q")}
    assert len(layers) == len(loaded.patches) == len(attentions) * len(targets)
    base = model.model.diffusion_model(x, t, **extra)
    try:
        comfy.model_management.load_models_gpu([loaded])
        ours = loaded.model.diffusion_model(x, t, **extra)
    finally:
        comfy.model_management.unload_all_models()
    assert (ours - base).abs().max() > 1e-3
    measured("exported LoRA through LoraLoader against peft", (ours - theirs).abs().max().item(), at_most=1e-5)


def test_a_lora_wired_and_from_its_file_give_the_same_picture(pack, seed, host_folders):
    model, latent = tiny.make_model("small", seed=seed), tiny.make_latent(seed, 8)
    prompt, negative = tiny.make_prompt(seed), tiny.make_prompt(seed + 1)
    features = steps.capture(pack, model, steps.invert(pack, model, latent, prompt)[0], prompt)
    lora = steps.random_lora(pack, model, seed)
    pack.core.lora.file.save_lora(host_folders / "loras" / "style.safetensors", lora, {})
    wired = steps.sample(pack, model, features, prompt, negative, lora=lora)
    chosen = steps.sample(pack, model, features, prompt, negative, lora_name="style.safetensors")
    assert torch.equal(wired, chosen)
    assert not torch.equal(wired, steps.sample(pack, model, features, prompt, negative))


def test_strength_zero_is_no_lora_bit_for_bit(pack, seed):
    model, latent, prompt = tiny.make_model("small", seed=seed), tiny.make_latent(seed, 8), tiny.make_prompt(seed)
    features = steps.capture(pack, model, steps.invert(pack, model, latent, prompt)[0], prompt)
    lora = steps.random_lora(pack, model, seed)
    zero = steps.sample(pack, model, features, prompt, prompt, lora=lora, lora_strength=0.0)
    assert torch.equal(zero, steps.sample(pack, model, features, prompt, prompt))


def test_a_model_that_carries_a_stock_lora_is_used_with_it(pack, seed, measured):
    """Load LoRA before the sampler, and the style LoRA inside it: both act."""
    model, latent, prompt = tiny.make_model("small", seed=seed), tiny.make_latent(seed, 8), tiny.make_prompt(seed)
    features = steps.capture(pack, model, steps.invert(pack, model, latent, prompt)[0], prompt)
    first, second = steps.random_lora(pack, model, seed, size=0.1), steps.random_lora(pack, model, seed + 1, size=0.1)
    import comfy.sd

    patched, _ = comfy.sd.load_lora_for_models(model, None, first, 0.7, 0.0)
    both = steps.sample(pack, patched, features, prompt, prompt, lora=second, lora_strength=0.5)
    host_only, _ = comfy.sd.load_lora_for_models(patched, None, second, 0.5, 0.0)
    patches = steps.sample(pack, host_only, features, prompt, prompt)
    comfy.model_management.unload_all_models()
    scale = model.model.process_latent_in(torch.ones(1)).item()
    assert not torch.equal(both, steps.sample(pack, model, features, prompt, prompt, lora=second, lora_strength=0.5))
    measured(
        "stock LoRA + style LoRA against two stock LoRAs", (both - patches).abs().max().item() * scale, at_most=1e-4
    )
