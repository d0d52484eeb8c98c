"""A captured step's tensors, in storage order, by the site that they are of."""

from __future__ import annotations

import torch

from diffstyler_core.injection.capture import flatten, split
from diffstyler_core.injection.sites import Site

FEATURE, OTHER = Site("feature", 4), Site("feature", 7)
ATTENTION, CROSS = Site("self-attention", 5), Site("cross-attention", 5)


def test_a_flat_step_is_split_by_its_sites():
    sites, one = (FEATURE, ATTENTION, OTHER, CROSS), torch.ones(1)
    taken = {FEATURE: (one,), ATTENTION: (2 * one, 3 * one), OTHER: (4 * one,), CROSS: (5 * one, 6 * one)}
    assert split(flatten(taken, sites), sites) == taken


def test_values_are_counted():
    sites, one = (FEATURE, ATTENTION, CROSS), torch.ones(1)
    taken = {FEATURE: (one,), ATTENTION: (2 * one, 3 * one, 4 * one), CROSS: (5 * one, 6 * one)}
    assert split(flatten(taken, sites), sites, values=True) == taken
