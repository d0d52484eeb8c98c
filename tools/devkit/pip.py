"""pip of an environment, with its output in a log and its scratch files on the disk that the set-up fills."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .console import Failure
from .process import run_logged

NETWORK = (
    "look at the log, check that pip reaches a package index (network, proxy, PIP_INDEX_URL), then run the same "
    "command again: it goes on where it stopped."
)


@dataclass(frozen=True)
class Pip:
    """`room`: the folder that is filled; its logs and its tmp are used."""

    python: Path
    room: Path

    def install(self, stage: str, *arguments: str, progress: str = "raw") -> None:
        # Bytecode of all that is installed takes longer than the unpacking, and most of it is never imported.
        self._pip(stage, "install", "--no-compile", *arguments, progress=progress)

    def download(self, stage: str, requirement: str, file: str, folder: Path, *options: str) -> Path:
        """Bring one file of the index into `folder`, whole or not at all. `file`: its name or a pattern. -> its path"""
        half = folder / "half"
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir(parents=True)
        self._pip(stage, "download", "--no-deps", *options, "--dest", str(half), requirement)
        found = next(half.glob(file), None)
        if found is None:
            raise Failure(stage, f"pip brought no {file}.", NETWORK)
        os.replace(found, folder / found.name)
        shutil.rmtree(half, ignore_errors=True)
        return folder / found.name

    def run(self, stage: str, command: Sequence[str]) -> None:
        run_logged(command, log=self.room / "logs" / f"{stage}.log", label=stage, env=self._environment())

    def _pip(self, stage: str, *arguments: str, progress: str = "raw") -> None:
        self.run(stage, [str(self.python), "-m", "pip", *arguments, "--progress-bar", progress])

    def _environment(self) -> Mapping[str, str]:
        scratch = self.room / "tmp"  # pip unpacks gigabytes there; the system's own may be small
        scratch.mkdir(parents=True, exist_ok=True)
        names = {name: str(scratch) for name in ("TMPDIR", "TEMP", "TMP")}
        return {**os.environ, **names, "PIP_NO_INPUT": "1", "PIP_USER": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
