"""In which numbers captured tensors are kept."""

from __future__ import annotations

import math

import pytest
import torch

from diffstyler_core.injection.keeper import Keeper, require_finite
from diffstyler_core.injection.sites import Site

FEATURE, ATTENTION = Site("feature", 4), Site("self-attention", 5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("given", [torch.float32, torch.float16, torch.bfloat16])
def test_what_is_kept_is_a_copy(dtype, given):
    tensor = torch.tensor([1.0, -3.0, 6e4]).to(given)
    expected = tensor.to(dtype, copy=True)
    keeper = Keeper(dtype)
    kept = keeper(tensor)
    tensor.zero_()
    assert kept.dtype == dtype
    assert torch.equal(kept, expected)
    assert (keeper.kept, keeper.widened) == (1, 0)


@pytest.mark.parametrize(
    ("value", "widened"),
    [(65504.0, False), (-65504.0, False), (65519.0, False), (65536.0, True), (-65536.0, True), (3e38, True)],
)
@pytest.mark.parametrize("given", [torch.float32, torch.bfloat16])
def test_what_exceeds_fp16_is_kept_in_bf16(value, widened, given):
    """65519 rounds to 65504 in fp16, and in bf16 all of these but the large ones are 65536."""
    tensor = torch.tensor([0.1, value, 2.0]).to(given)
    widened = widened or given == torch.bfloat16
    keeper = Keeper(torch.float16)
    kept = keeper(tensor)
    assert kept.dtype == (torch.bfloat16 if widened else torch.float16)
    assert torch.equal(kept, tensor.to(kept.dtype))
    assert kept.isfinite().all()
    keeper(torch.ones(2))
    assert (keeper.kept, keeper.widened) == (2, int(widened))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 1])
def test_the_first_site_with_nan_or_infinity_is_named(dtype, value, place):
    keeper = Keeper(dtype)
    good, bad = torch.ones(2, 3), torch.tensor([[1.0, 2.0], [value, 0.0]])
    taken = {FEATURE: (keeper(good),), ATTENTION: (keeper(good), keeper(good))}
    require_finite(7, taken)
    taken[(FEATURE, ATTENTION)[place]] = (keeper(bad),) if place == 0 else (keeper(good), keeper(bad))
    with pytest.raises(ValueError, match=rf"model: .*NaN or Inf at step 7, {(FEATURE, ATTENTION)[place]}\. .*--bf16"):
        require_finite(7, taken)
