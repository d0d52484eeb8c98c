"""What each node costs in UNet evaluations (rows), counted from outside."""

from __future__ import annotations

import pytest
import steps
import tiny
import torch
from probes import Ending, counting


@pytest.fixture(scope="module")
def plain():
    with torch.inference_mode():
        yield tiny.make_model("small")


@pytest.mark.parametrize(
    ("changes", "rows"),
    [
        ({}, 4),
        ({"steps": 7}, 7),
        ({"refinement": 1}, 8),
        ({"refinement": 3}, 16),
        ({"reconstruct": True}, 8),
        ({"reconstruct": True, "refinement": 2}, 16),
        ({"steps": 1, "reconstruct": True}, 2),
    ],
)
def test_inversion(pack, plain, changes, rows):
    model, counted = counting(plain)
    steps.invert(pack, model, tiny.make_latent(size=8), tiny.make_prompt(1), **changes)
    assert sum(counted) == len(counted) == rows


@pytest.mark.parametrize("storage", ["memory", "disk", "recompute"])
@pytest.mark.parametrize(
    ("changes", "rows"),
    [
        ({}, 4),
        ({"feature_steps": 1, "attention_steps": 2}, 2),
        ({"feature_steps": 3, "attention_steps": 0}, 3),
        ({"self_attention_layers": "", "feature_steps": 1}, 1),
        ({"feature_layers": "", "attention_steps": 2}, 2),
    ],
)
def test_capture(pack, plain, storage, changes, rows):
    trajectory, *_ = steps.invert(pack, plain, tiny.make_latent(size=8), tiny.make_prompt(1))
    model, counted = counting(plain)
    steps.capture(pack, model, trajectory, tiny.make_prompt(1), storage=storage, **changes)
    assert sum(counted) == len(counted) == (0 if storage == "recompute" else rows)


@pytest.mark.parametrize(
    ("storage", "changes", "rows"),
    [
        ("memory", {"cfg": 3.0}, 2 * 4),
        ("memory", {"cfg": 1.0}, 4),
        ("disk", {"cfg": 3.0}, 2 * 4),
        ("recompute", {"cfg": 3.0}, 3 * 4),
        ("recompute", {"cfg": 1.0}, 2 * 4),
        ("recompute", {"cfg": 3.0, "attention_mode": "fixed"}, 2 * 4 + 2),  # nothing to inject after two steps
        ("recompute", {"cfg": 3.0, "feature_steps": 0, "attention_steps": 0}, 2 * 4),
        ("recompute", {"cfg": 1.0, "feature_steps": 1, "attention_steps": 0}, 4 + 1),
    ],
)
@pytest.mark.parametrize("with_lora", [False, True])
def test_sampling(pack, plain, storage, changes, rows, with_lora):
    prompt, negative = tiny.make_prompt(1), tiny.make_prompt(2)
    trajectory, *_ = steps.invert(pack, plain, tiny.make_latent(size=8), prompt)
    model, counted = counting(plain)
    features = steps.capture(pack, model, trajectory, prompt, storage=storage)
    counted.clear()
    lora = steps.random_lora(pack, plain, 0) if with_lora else None
    steps.sample(pack, model, features, prompt, negative, lora=lora, **changes)
    assert sum(counted) == rows
    if changes["cfg"] != 1.0 and storage != "recompute":
        assert counted == [2] * 4, "positive and negative share one forward"


@pytest.mark.parametrize(("training_steps", "batch"), [(1, 1), (3, 1), (2, 2)])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_training_is_one_forward_and_one_backward_a_step(
    pack, plain, monkeypatch, training_steps, batch, checkpointing
):
    backward, backwards = torch.Tensor.backward, []
    monkeypatch.setattr(
        torch.Tensor, "backward", lambda self, *a, **k: (backwards.append(1), backward(self, *a, **k))[1]
    )
    ending = Ending(monkeypatch)
    picture = torch.rand(1, 64, 64, 3)
    steps.train(
        pack,
        plain,
        tiny.make_vae(),
        picture,
        tiny.make_prompt(1),
        steps=training_steps,
        batch_size=batch,
        gradient_checkpointing=checkpointing,
        save=False,
    )
    assert ending.rows == [batch] * training_steps
    assert len(backwards) == training_steps


def test_a_training_preview_costs_ten_evaluations(pack, plain, monkeypatch):
    ending = Ending(monkeypatch)
    picture = torch.rand(1, 64, 64, 3)
    steps.train(pack, plain, tiny.make_vae(), picture, tiny.make_prompt(1), steps=4, preview_every=2, save=False)
    assert ending.rows == [1] * (4 + 2 * 10)
