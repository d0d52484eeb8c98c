"""The memory of every stage at SD1.5's size: a process for each stage, one after the other."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tools.bench.memory_stage import STAGES
from tools.devkit.console import Failure

SCRIPT = Path(__file__).with_name("memory_stage.py")


def rows(width: int, side: int, steps: int, threads: int | None) -> Iterator[dict[str, Any]]:
    """The rows of results.json, as they come. Raises Failure for a stage that does not end well."""
    for stage in STAGES:
        command = [sys.executable, str(SCRIPT), stage, "--width", str(width), "--side", str(side)]
        command += ["--steps", str(steps), *(["--threads", str(threads)] if threads else [])]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        lines = done.stdout.strip().splitlines()
        if done.returncode or not lines:
            said = "\n".join(done.stderr.strip().splitlines()[-3:])
            raise Failure(
                f"memory of {stage!r}",
                f"its process ended with code {done.returncode}: {said}",
                "at SD1.5's size it needs about 16 GB of free RAM on a CPU (-9 is the system's refusal): free some.",
            )
        found: dict[str, Any] = json.loads(lines[-1])
        yield found
