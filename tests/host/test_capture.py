"""Capture: the very tensors that diffusers' modules produce, as many bytes as the closed form says, no more."""

from __future__ import annotations

import pytest
import reference
import steps
import tiny
import torch

BYTES = {"fp16": 2, "bf16": 2, "fp32": 4}


def tapped(unet, site_outputs: dict, z, t: int, context) -> None:
    """Fills ``site_outputs`` with what diffusers' modules of these names put out."""
    handles = [
        unet.get_submodule(name).register_forward_hook(
            lambda module, args, output, name=name: site_outputs.__setitem__(name, output)
        )
        for name in list(site_outputs)
    ]
    unet(z, torch.tensor(t), encoder_hidden_states=context)
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("kind", ["sd15", "sd21"])
def test_captured_tensors_are_those_of_diffusers(pack, seed, measured, kind):
    """Decoder layer l is ``up_blocks[l // 3]``, entry ``l % 3``; the feature is ``conv2``'s output, before the skip."""
    unet, model = reference.pair(kind, seed)
    latent, source = tiny.make_latent(seed, size=16), tiny.make_prompt(seed)
    trajectory, *_ = steps.invert(pack, model, latent, source, steps=2)
    features = steps.capture(
        pack, model, trajectory, source, feature_layers="0-11", self_attention_layers="3-11",
        cross_attention_layers="4,8", feature_steps=2, attention_steps=2,
    )  # fmt: skip
    worst = 0.0
    for step, t in enumerate(trajectory.schedule.timesteps):
        sites, theirs = features.request.sites_at(step), {}
        for site in sites:
            theirs.update(dict.fromkeys(diffusers_names(site)))
        tapped(unet, theirs, trajectory.latents[step], t, source[0][0])
        for site, tensors in features.at(step).items():
            for name, tensor in zip(diffusers_names(site), tensors, strict=True):
                worst = max(worst, (tensor - theirs[name]).abs().max().item())
    measured("captured features, q and k against diffusers'", worst, at_most=1e-5)


def diffusers_names(site) -> list[str]:
    block, entry = divmod(site.layer, 3)
    if site.kind == "feature":
        return [f"up_blocks.{block}.resnets.{entry}.conv2"]
    attention = "attn1" if site.kind == "self-attention" else "attn2"
    path = f"up_blocks.{block}.attentions.{entry}.transformer_blocks.{site.depth}.{attention}"
    return [f"{path}.to_q", f"{path}.to_k"]


def expected_bytes(size: int, request: dict, tokens: int = 77) -> int:
    """Sum over sites of shape x itemsize x steps, for the 'small' model: 32 channels, two levels."""
    side = {0: size // 2, 1: size // 2, 2: size, 3: size}
    feature = sum(32 * side[layer] ** 2 for layer in request["feature"])
    own = sum(2 * 32 * side[layer] ** 2 for layer in request["self"])
    cross = sum(32 * side[layer] ** 2 + 32 * tokens for layer in request["cross"])
    numbers = feature * request["feature_steps"] + (own + cross) * request["attention_steps"]
    return numbers * BYTES[request["precision"]]


@pytest.mark.parametrize("storage", ["memory", "disk"])
@pytest.mark.parametrize(
    ("feature", "own", "cross", "feature_steps", "attention_steps", "precision", "evaluations"),
    [
        ([1], [2, 3], [], 3, 4, "fp16", 4),
        ([0, 1, 2, 3], [], [], 2, 4, "fp32", 2),
        ([], [2], [3], 4, 1, "bf16", 1),
        ([1], [3], [2], 3, 0, "fp32", 3),
    ],
)
def test_capture_holds_what_windows_can_use_and_no_more(
    pack, storage, feature, own, cross, feature_steps, attention_steps, precision, evaluations
):
    request = {
        "feature": feature, "self": own, "cross": cross, "feature_steps": feature_steps,
        "attention_steps": attention_steps, "precision": precision,
    }  # fmt: skip
    model, prompt = tiny.make_model("small"), tiny.make_prompt(5)
    trajectory, *_ = steps.invert(pack, model, tiny.make_latent(size=8), prompt)
    features = steps.capture(
        pack, model, trajectory, prompt, feature_layers=",".join(map(str, feature)),
        self_attention_layers=",".join(map(str, own)), cross_attention_layers=",".join(map(str, cross)),
        feature_steps=feature_steps, attention_steps=attention_steps, precision=precision, storage=storage,
    )  # fmt: skip
    assert features.store.nbytes == expected_bytes(8, request)
    assert features.request.steps() == evaluations
    for step in range(evaluations):
        layers = {(site.kind, site.layer) for site in features.at(step)}
        expected = {("feature", layer) for layer in feature if step < feature_steps}
        if step < attention_steps:
            expected |= {("self-attention", layer) for layer in own} | {("cross-attention", layer) for layer in cross}
        assert layers == expected


def test_memory_and_disk_hold_the_same_bits(pack, seed):
    model, prompt = tiny.make_model("small", seed=seed), tiny.make_prompt(seed)
    trajectory, *_ = steps.invert(pack, model, tiny.make_latent(seed, 8), prompt)
    memory, disk = (
        steps.capture(pack, model, trajectory, prompt, storage=storage, precision=precision)
        for storage, precision in (("memory", "fp32"), ("disk", "fp32"))
    )
    for step in range(4):
        kept, read = memory.at(step), disk.at(step)
        assert kept.keys() == read.keys()
        assert all(torch.equal(a, b) for site in kept for a, b in zip(kept[site], read[site], strict=True))
    assert {p.name for p in disk.store.folder.iterdir()} == {f"step_{i:04d}.safetensors" for i in range(4)}


@pytest.mark.parametrize(("lora", "cfg"), [(False, 1.0), (True, 3.0)])
def test_every_storage_gives_the_same_picture_bit_for_bit(pack, seed, lora, cfg):
    model, latent = tiny.make_model("small", seed=seed), tiny.make_latent(seed, 8)
    content, positive, negative = (tiny.make_prompt(seed + i) for i in range(3))
    trajectory, *_ = steps.invert(pack, model, latent, content)
    style = steps.random_lora(pack, model, seed) if lora else None
    memory, disk, recompute = (
        steps.sample(
            pack, model, steps.capture(pack, model, trajectory, content, cross_attention_layers="3", storage=storage),
            positive, negative, cfg=cfg, lora=style,
        )
        for storage in ("memory", "disk", "recompute")
    )  # fmt: skip
    assert torch.equal(memory, disk)
    assert torch.equal(memory, recompute)


def test_files_go_with_the_capture(pack, tmp_path):
    model, prompt = tiny.make_model("small"), tiny.make_prompt(5)
    trajectory, *_ = steps.invert(pack, model, tiny.make_latent(size=8), prompt)
    features = steps.capture(pack, model, trajectory, prompt, storage="disk")
    folder = features.store.folder
    assert folder.is_relative_to(tmp_path)
    assert len(list(folder.iterdir())) == 4
    del features
    assert not folder.exists()
