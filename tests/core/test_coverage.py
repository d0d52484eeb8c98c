"""How much each style covers."""

from __future__ import annotations

import pytest
import torch

from diffstyler_core.styles.coverage import coverage
from diffstyler_core.styles.regions import share


def band(first: int, last: int, value: float = 1.0) -> torch.Tensor:
    """A mask [4, 10] of this value in columns first..last - 1."""
    mask = torch.zeros(4, 10)
    mask[:, first:last] = value
    return mask


@pytest.mark.parametrize(
    ("masks", "styles", "uncovered", "overlap"),
    [
        ([band(0, 5), band(5, 8)], (0.5, 0.3), 0.2, 0.0),
        ([band(0, 6), band(4, 10)], (0.5, 0.5), 0.0, 0.2),
        ([band(0, 10, 0.25), band(0, 10, 0.75)], (0.25, 0.75), 0.0, 0.0),
        ([band(0, 5, 0.75), band(0, 10, 0.75)], (0.25, 0.625), 0.125, 0.5),
        ([band(0, 5), None], (0.5, 0.5), 0.0, 0.0),
        ([band(0, 0), band(0, 1)], (0.0, 0.1), 0.9, 0.0),
        ([None], (1.0,), 0.0, 0.0),
        ([band(0, 10, 0.5), band(0, 10, 0.5 + 4e-4)], (0.5, 0.5), 0.0, 0.0),
    ],
)
def test_parts_of_the_picture(masks, styles, uncovered, overlap):
    covered = coverage(share(masks, 4, 10), masks)
    assert covered.styles == pytest.approx(styles, abs=1e-3)
    assert covered.uncovered == pytest.approx(uncovered, abs=1e-3)
    assert covered.overlap == pytest.approx(overlap, abs=1e-7)
    assert sum(covered.styles) + covered.uncovered == pytest.approx(1.0, abs=1e-6)
