"""Large masks: little more memory than the masks themselves, measured in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import resource, torch
torch.set_num_threads(1)
from diffstyler_core.masks.mask import feather, ramp, resize_by_area
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
feather(torch.rand(64, 64), 8), resize_by_area(torch.rand(64, 64), 8, 8)
mask, before = torch.rand({size}, {size}), peak()
{work}
print(peak() - before)
"""
WORK = {  # MB: 36 is one mask of 3072 x 3072 in fp32
    "feather": (512, "feather(mask, 512)", 150),
    "the same size": (3072, "resize_by_area(mask, 3072, 3072)", 40),
    "smaller": (3072, "resize_by_area(mask, 2000, 2000)", 120),
    "larger": (64, "resize_by_area(mask, 3072, 3072)", 120),
    "ramp": (64, "ramp(3072, 3072, 'linear', 30.0, (0.5, 0.5), 1.0)", 100),
    "logistic": (64, "ramp(3072, 3072, 'logistic', 30.0, (0.5, 0.5), 1.0)", 100),
}


@pytest.mark.skipif(sys.platform == "win32", reason="resource is not on Windows")
@pytest.mark.parametrize("what", WORK)
def test_memory(what):
    size, work, most = WORK[what]
    program = PROGRAM.format(size=size, work=work)
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert float(done.stdout) < most
