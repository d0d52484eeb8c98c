"""How the demo checkpoint's encoder is made: its first layers are a change of basis, exactly."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def training():
    """tools.demo_training, with the pack's root on the path behind the host's."""
    sys.path.append(str(ROOT))
    try:
        yield importlib.import_module("tools.demo_training.autoencoder")
    finally:
        sys.path.remove(str(ROOT))


@pytest.fixture
def trunk(training):
    """An autoencoder whose trunk holds the components of random pictures with large and small structure."""
    torch.manual_seed(torch.seed() % 2**31)
    patch = importlib.import_module("tools.demo_training.patch_encoder")
    images = torch.nn.functional.interpolate(torch.rand(12, 3, 8, 10), scale_factor=8, mode="bicubic").clamp(0, 1)
    images = (0.8 * images + 0.2 * torch.rand_like(images)).clamp(0, 1)
    model = training.build()
    basis = patch.principal(images)
    patch.write_trunk(model.taesd_encoder, basis)
    return patch, model, basis, images


def test_the_basis_is_read_back_as_it_was_written(trunk):
    patch, model, basis, _ = trunk
    components, offset = patch.read_basis(model.taesd_encoder)
    assert torch.equal(components, basis.components)
    assert torch.equal(offset, basis.offset)
    identity = torch.eye(patch.COMPONENTS)
    torch.testing.assert_close(components @ components.T, identity, atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_hosts_layers_give_the_components(trunk):
    patch, model, _, images = trunk
    x = images
    for layer in list(model.taesd_encoder)[: patch.TRUNK]:
        x = layer(x)
    torch.testing.assert_close(torch.relu(x), patch.features(model.taesd_encoder, images), atol=1e-4, rtol=0)


@torch.no_grad()
def test_encode_is_the_whole_encoder(training, trunk):
    _, model, _, images = trunk
    torch.nn.init.normal_(model.taesd_encoder[12].conv[-1].weight, std=0.02)
    whole, quick = model.taesd_encoder(images), training.encode(model, images)
    assert whole.shape == (12, training.LATENT_CHANNELS, 8, 10)
    torch.testing.assert_close(quick, whole, atol=1e-3 * float(whole.abs().max()), rtol=0)


@torch.no_grad()
def test_the_components_hold_the_picture(trunk):
    """What 60 of 192 components miss is what the principal components of the patches leave over."""
    patch, model, basis, images = trunk
    found = patch.features(model.taesd_encoder, images)[:, : patch.COMPONENTS] - basis.offset[:, None, None]
    flat = patch.patches(images)
    back = torch.einsum("bkhw,kp->bphw", found, basis.components)
    missed = (flat - back) - (flat - back).mean((0, 2, 3), keepdim=True)
    values = torch.linalg.eigvalsh(torch.cov(flat.movedim(1, 0).flatten(1).double()))
    share = float(missed.double().square().mean((0, 2, 3)).sum() / values.sum())
    assert share == pytest.approx(float(values[: -patch.COMPONENTS].sum() / values.sum()), rel=0.02)
