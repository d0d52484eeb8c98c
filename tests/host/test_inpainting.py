"""UNets of 9 channels: mask and masked picture of InpaintModelConditioning reach every evaluation."""

from __future__ import annotations

import comfy.model_patcher
import pytest
import steps
import tiny
import torch

from nodes import InpaintModelConditioning


def inpainting_model(seed):
    config = tiny.TinySD21({**tiny.CONFIGS["small"], "in_channels": 9})
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model({}, "", device="cpu")
    model.set_inpaint()
    tiny.fill(model.diffusion_model, seed)
    return comfy.model_patcher.CoreModelPatcher(
        model, load_device=torch.device("cpu"), offload_device=torch.device("cpu")
    )


@pytest.fixture
def seen():
    """The model, and what its UNet was given beside the latent: [B, 5, h, w] of each evaluation."""
    model, beside = inpainting_model(0), []
    hook = model.model.diffusion_model.register_forward_pre_hook(lambda _, args: beside.append(args[0][:, 4:].clone()))
    yield model, beside
    hook.remove()


def test_mask_and_picture_reach_inversion_and_capture(pack, seen, seed):
    model, beside = seen
    torch.manual_seed(seed)
    mask = torch.zeros(1, 128, 128)
    mask[:, 32:96, 32:96] = 1
    source, _, latent = InpaintModelConditioning().encode(
        tiny.make_prompt(0), tiny.make_prompt(1), torch.rand(1, 128, 128, 3), tiny.make_vae(), mask
    )
    trajectory, *_ = steps.invert(pack, model, {"samples": latent["samples"]}, source)
    inverted = len(beside)
    features = steps.capture(pack, model, trajectory, source)
    assert features.at(0)
    assert 0 < inverted < len(beside), "both evaluate the UNet"
    ((_, given),) = source
    cells = torch.zeros(16, 16)
    cells[4:12, 4:12] = 1
    picture = model.model.process_latent_in(given["concat_latent_image"])
    for extra in beside:
        assert torch.equal(extra[0, 0], cells)
        assert torch.allclose(extra[:1, 1:], picture)


def test_without_them_all_is_masked_as_in_the_hosts_sampler(pack, seen):
    model, beside = seen
    steps.invert(pack, model, tiny.make_latent(), tiny.make_prompt(0))
    assert beside
    assert all(torch.equal(extra[:, 0], torch.ones_like(extra[:, 0])) for extra in beside)
