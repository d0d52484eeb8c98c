"""The method's own tests: no ComfyUI, seconds."""

from __future__ import annotations

import os

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture
def seed(record_property) -> int:
    """A fresh seed for every test; set DIFFSTYLER_TEST_SEED to repeat a failure."""
    value = int(os.environ.get("DIFFSTYLER_TEST_SEED") or int.from_bytes(os.urandom(3), "big"))
    record_property("seed", value)
    print(f"seed: DIFFSTYLER_TEST_SEED={value}")  # noqa: T201 - shown when the test fails
    return value
