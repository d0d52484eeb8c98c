"""Fixtures (a pytest plugin) that check the MODEL around every test of bad input, cancel and clean-up."""

from __future__ import annotations

import pytest
import tiny
import torch
from node_bench import NodeBench


@pytest.fixture(scope="session")
def shared_bench(pack):
    """One 'small' model and its VAE for all tests; at the end every weight is what it was."""
    with torch.inference_mode():
        made = NodeBench(pack, tiny.make_model("small"), tiny.make_vae())
    before = {key: weight.clone() for key, weight in made.model.model.state_dict().items()}
    yield made
    after = made.model.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.fixture
def bench(shared_bench):
    """The nodes on that model; after the test a plain KSampler run must give the very same picture as before."""
    yield shared_bench
    shared_bench.check_clean()
