"""`dev.py test`: linter, contracts of imports, type checker, and each folder of tests in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .chromium import MISSING, find_chromium
from .console import say
from .host import Host
from .lanes import lanes
from .links import link_file, link_folder
from .process import run_foreground
from .reports import Counts, Outcome, read_junit, table

CHECKERS = ("lint", "format", "walls", "types")
SUITES = ("core", "host", "device", "server", "browser")
FRONTEND = "frontend"  # the browser tests marked every_frontend, on the newest frontend that was tried
OLDER = "older"  # what a ComfyUI that is too old says
PARTS = (*CHECKERS, *SUITES, FRONTEND)  # when none is named
SIDE_BY_SIDE = ("core", "host", "device")  # the others' tests share one server
LIMIT_S = 3600.0  # for one part: one that hangs must not hang the whole run
_LINT_IMPORTS = "from importlinter.cli import lint_imports_command as lint; lint()"  # it has no -m form
_NO_TESTS = 5  # pytest's exit code
_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "YOLO_OFFLINE": "1", "PYTHONFAULTHANDLER": "1"}
_ONE_THREAD = {"OMP_NUM_THREADS": "1"}  # the tests' tensors are tiny: a second thread costs more than it brings


@dataclass(frozen=True)
class Checks:
    root: Path
    host: Host
    environ: Mapping[str, str]
    pytest_args: Sequence[str] = ()
    frontends: Mapping[str, Path] = field(default_factory=dict)
    """Part -> the build of the frontend that its browser tests run on in place of the host's own."""

    def run(self, parts: Sequence[str]) -> int:
        """Run the parts and print the table. -> exit code"""
        outcomes = []
        for part in parts:
            say(f"\n=== {part} ===")
            began = time.monotonic()
            outcome = self._part(part)
            outcomes.append(Outcome(part, outcome.state, time.monotonic() - began, outcome.counts, outcome.note))
            if outcome.state == "skipped":
                say(f"skipped: {outcome.note}")
        say("\n" + table(outcomes))
        return int(any(outcome.state == "FAILED" for outcome in outcomes))

    def _part(self, part: str) -> Outcome:
        if part == "lint":
            return self._checker(part, ["-m", "ruff", "check", "."], self.root)
        if part == "format":
            return self._checker(part, ["-m", "ruff", "format", "--check", "."], self.root)
        if part == "walls":
            return self._walls()
        return self._types() if part == "types" else self._suite(part)

    def _walls(self) -> Outcome:
        """import-linter wants a package with a name: look through links at what the pack is made of. Its own kind of
        contract lies in the tools."""
        room = self.root / ".host" / "walls"
        link_file(self.root / "__init__.py", room / "comfyui_diffstyler" / "__init__.py")
        for folder in ("nodes", "diffstyler_core"):
            link_folder(self.root / folder, room / "comfyui_diffstyler" / folder)
        link_folder(self.root / "tools", room / "tools")
        return self._checker("walls", ["-c", _LINT_IMPORTS, f"--config={self.root / 'pyproject.toml'}"], room)

    def _types(self) -> Outcome:
        """mypy takes a package by its folder's name, and a clone's may be no name at all ('my-pack'): look through a
        link. The tools import from the clone's root."""
        link = self.root / ".host" / "types" / "diffstyler"
        link_folder(self.root, link)
        config, cache = self.root / "pyproject.toml", self.root / ".mypy_cache"
        mypy = ["-m", "mypy", f"--config-file={config}", f"--cache-dir={cache}"]
        packages = ["diffstyler/__init__.py", "diffstyler/nodes", "diffstyler/diffstyler_core"]
        pack = self._checker("types", [*mypy, *packages], link.parent)
        tools = self._checker("types", [*mypy, "--explicit-package-bases", "tools"], self.root)
        scripts = self._checker("types", [*mypy, "--explicit-package-bases", "."], self.root / "scripts")
        return next((outcome for outcome in (pack, tools, scripts) if outcome.state == "FAILED"), scripts)

    def _checker(self, part: str, arguments: Sequence[str], cwd: Path) -> Outcome:
        code = self._python(arguments, cwd)
        return Outcome(part, "FAILED" if code else "ok", note=_code_note(code))

    def _suite(self, part: str) -> Outcome:
        if part in ("browser", FRONTEND) and find_chromium(self.environ) is None:
            return self._left_out(part, MISSING)
        report = self.root / ".host" / "reports" / f"{part}.xml"
        report.parent.mkdir(parents=True, exist_ok=True)
        report.unlink(missing_ok=True)
        reporting = [f"--junitxml={report}", "-o", "junit_family=xunit1"]  # that family may hold measured properties
        spread = lanes(self.pytest_args) if part in SIDE_BY_SIDE else []
        named = {"DIFFSTYLER_FRONTEND": str(self.frontends[part])} if part in self.frontends else {}
        arguments = ["-m", "pytest", *self._tests(part), *spread, *reporting, *self.pytest_args]
        code = self._python(arguments, self.root, named)
        return judge(part, code, read_junit(report))

    def _tests(self, part: str) -> list[str]:
        if part == FRONTEND:
            return [str(self.root / "tests" / "browser"), "-m", "every_frontend"]
        return [str(self.root / "tests" / part)]

    def _left_out(self, part: str, reason: str) -> Outcome:
        """A suite that cannot run here: its tests are counted, so that their absence shows."""
        asked = subprocess.run(
            [str(self.host.python), "-m", "pytest", "--collect-only", "-q", *self._tests(part)],
            cwd=self.root, env=self._environment(), capture_output=True, text=True, check=False,
        )  # fmt: skip
        found = re.search(r"(\d+)(?:/\d+)? tests? collected", asked.stdout)
        if found is None:
            say(asked.stdout + asked.stderr)
            return Outcome(part, "FAILED", counts=Counts(failed=1), note="its tests cannot even be collected")
        return Outcome(part, "skipped", counts=Counts(skipped=int(found.group(1))), note=reason)

    def _python(self, arguments: Sequence[str], cwd: Path, named: Mapping[str, str] | None = None) -> int | None:
        env = {**self._environment(), **(named or {})}
        return run_foreground([str(self.host.python), *arguments], env=env, cwd=cwd, limit=LIMIT_S)

    def _environment(self) -> dict[str, str]:
        env = {**_ONE_THREAD, **self.host.environment(self.environ), **_OFFLINE}
        chromium = find_chromium(self.environ)
        return {**env, "DIFFSTYLER_CHROMIUM": str(chromium)} if chromium else env


def judge(part: str, code: int | None, counts: Counts | None) -> Outcome:
    """From pytest's exit code (None: stopped at the time limit) and its report."""
    if code == _NO_TESTS:
        return Outcome(part, "skipped", counts=counts, note="no test was selected")
    if counts is None or (code != 0 and not counts.failed):  # it died, or could not begin: that is no pass
        counts = (counts or Counts()) + Counts(failed=1)
    return Outcome(part, "FAILED" if counts.failed else "ok", counts=counts, note=_code_note(code))


def _code_note(code: int | None) -> str:
    if code is None:
        return f"stopped after {LIMIT_S / 60:.0f} minutes"
    if code < 0 or code > 1:
        return f"ended with code {code}" + (", killed by a signal" if code < 0 and os.name != "nt" else "")
    return ""
