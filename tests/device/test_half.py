"""Real half precision on the CPU: tiny models in fp16 and bf16 against the same weights in fp32.

The errors are those of the whole run, the rounding of the weights with it, as a checkpoint in half precision has it.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest
import runs
import steps
import tiny
import torch


class Case(NamedTuple):
    """A family in a number format. bound: relative distance from fp32 of what is inverted and captured, and of what
    four steps with guidance make of it.
    """

    kind: str
    weights: torch.dtype
    computing: torch.dtype | None
    bound: tuple[float, float]


FP16, BF16 = (3e-2, 0.2), (0.1, 0.4)
CASES = {
    "sd15 fp16": Case("sd15", torch.float16, None, FP16),
    "sd15 fp16 computed in bf16": Case("sd15", torch.float16, torch.bfloat16, BF16),
    "sd21 v bf16": Case("sd21", torch.bfloat16, None, BF16),
    "sdxl fp16": Case("sdxl", torch.float16, None, FP16),
}


@pytest.mark.parametrize("case", CASES)
def test_the_whole_path_is_what_it_is_in_fp32(pack, seed, measured, case):
    kind, weights, computing, bound = CASES[case]
    path = runs.Path(pack, kind, seed)
    exact = path.run(runs.make_model(kind, seed))
    half = path.run(runs.make_model(kind, seed, weights, computing))
    for stage, theirs in exact.items():
        assert torch.isfinite(half[stage]).all(), stage
        single = stage == "inversion" or stage.startswith("captured")
        measured(f"{stage}, relative", runs.gap(half[stage], theirs), at_most=bound[0] if single else bound[1])


@pytest.mark.parametrize(("kind", "precision"), [("sd15", "fp16"), ("sdxl", "bf16")])
def test_training_goes_where_it_goes_in_fp32(pack, seed, measured, kind, precision):
    """Loss of every step, and the change of the factors that begin at 0."""
    prompt, picture = tiny.make_prompt(seed, sdxl=kind == "sdxl"), torch.rand(1, 64, 64, 3)
    model = runs.make_model(kind, seed, torch.float16 if precision == "fp16" else torch.bfloat16)
    chosen = {"steps": 4, "save": False, "seed": seed}
    trained = [
        steps.train(pack, of, tiny.make_vae(), picture, prompt, precision=named, **chosen)
        for of, named in ((model, precision), (runs.make_model(kind, seed), "fp32"))
    ]
    (lora, losses, _), (exact, theirs, _) = trained
    for ours, other in zip(losses["loss"], theirs["loss"], strict=True):
        measured("loss, relative", abs(ours / other - 1.0), at_most=5e-2)
    ups = [key for key in exact if key.endswith("lora_up.weight")]
    assert all(torch.isfinite(weight).all() for weight in lora.values())
    both = (torch.cat([state[key].flatten().float() for key in ups]) for state in (lora, exact))
    measured("direction of the LoRA, cosine", torch.cosine_similarity(*both, dim=0).item(), at_least=0.9)
