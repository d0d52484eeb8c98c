"""`dev.py verify` after the set-up: a private server with the pack and one checkpoint, and the report of what it does.

Runs under the Python of ComfyUI's environment; tools/dev.py starts it.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).absolute().parents[2]))

import aiohttp

from tools.comfy_client import PromptError, RequestFailed
from tools.comfy_events import StreamClosed
from tools.comfy_server import ComfyServer, ServerFailed
from tools.comparison import run_main
from tools.demo import require_pack
from tools.demo_sheet import save_grid
from tools.devkit.base import prepare_base
from tools.devkit.console import Failure, duration, say
from tools.devkit.links import link_folder
from tools.devkit.process import interrupts_on_terminate
from tools.results_prompt import Nodes
from tools.verify import ablation, checks, stages
from tools.verify.about import about, settings_for
from tools.verify.bench import Bench, findings
from tools.verify.checkpoint import staged
from tools.verify.discreet import discreet
from tools.verify.options import verify_parser
from tools.verify.outcome import Outcome
from tools.verify.report import Report, html_of, text_of

ROOT = Path(__file__).absolute().parents[2]
DEMO = ROOT / "demo" / "diffstyler-demo.safetensors"
LOG = ROOT / ".host" / "logs" / "verify-server.log"
PROBES = "diffstyler-verify"
"""Of the private server's custom nodes: this package's own."""
ERRORS = (PromptError, ServerFailed, Failure, RequestFailed, StreamClosed, aiohttp.ClientError)
LOG_LINES = 160
USUAL = re.compile(r"got prompt|Prompt executed|\d+%\|")
STEPS, QUICK_STEPS, QUICK_TRAINING = 30, 6, 20
TRAINING = {True: 160, False: 200}
"""Training steps for the demo checkpoint, and for any other."""


class Verification:
    """One checkpoint on one server. Each part runs, whatever became of the others."""

    def __init__(self, server: ComfyServer, bench: Bench, report: Report, clean: Callable[[str], str]) -> None:
        self.server, self.bench, self.report, self._clean = server, bench, report, clean

    def run(self, rounds: int) -> None:
        """Checks, stages, ablation, and the checks that come after everything."""
        say("\nSelf-checks")
        self.check(checks.BEFORE)
        say("\nSpeed and memory")
        self._measure(rounds)
        say("\nThe paper's ablation")
        self._ablate()
        say("\nClean-up")
        self.check(checks.AFTER)

    def check(self, chosen: Sequence[checks.Check]) -> None:
        """Runs each check; one that fails says why in the report, and the next is run."""
        for check in chosen:
            try:
                verdict = check.run(self.bench)
                outcome = Outcome(check.claim, *verdict)
            except ERRORS as error:
                outcome = Outcome(check.claim, "", "", False, self._failed(check.claim, error))
            self.report.checks.append(outcome)
            say(f"  {'passed' if outcome.passed else 'FAILED'}  {check.claim}: {outcome.error or outcome.figure}")

    def _measure(self, rounds: int) -> None:
        runs: dict[str, list[stages.Measured]] = {}
        failed: set[str] = set()
        for number in range(1, rounds + 1):
            for stage in (stage for stage in stages.STAGES if stage.name not in failed):
                try:
                    one = stages.measured(self.bench, stage, 100 * number, self.server)
                except ERRORS as error:
                    failed.add(stage.name)
                    say(f"  FAILED  {stage.name}: {self._failed(stage.name, error)}")
                    continue
                runs.setdefault(stage.name, []).append(one)
                say(f"  {stage.name}: {one.seconds:.3f} s a step")
        self.report.stages = stages.rows_of(runs)

    def _ablate(self) -> None:
        pairs = []
        for content, style in ablation.PAIRS:
            name = f"{content} in the style of {style.name}"
            say(f"  {name}")
            try:
                pairs.append(ablation.run_pair(self.bench.client, content, style, self.bench.settings))
            except ERRORS as error:
                say(f"  FAILED  {self._failed(name, error)}")
        if pairs:
            self.report.results = [row for pair in pairs for row in pair.rows]
            self.report.claims = ablation.claims(pairs, self.bench.settings)
            sheet = self.server.base_directory / "sheet.jpg"
            save_grid([pair.panels for pair in pairs], sheet, side=224)
            self.report.sheet = sheet.read_bytes()

    def keep_log(self) -> None:
        """The server's log for the report, without what every prompt writes: its start and its end."""
        lines = [line for line in self.server.log_text().splitlines() if line.strip() and not USUAL.search(line)]
        middle = len(lines) - LOG_LINES
        kept = lines if middle <= 0 else [*lines[: LOG_LINES // 2], "...", *lines[-LOG_LINES // 2 :]]
        self.report.log = self._clean("\n".join(kept))

    def _failed(self, part: str, error: Exception) -> str:
        """Notes what failed for the report, with the node's trace, once. -> it in short"""
        words = self._clean(str(error))
        trace = self._clean(error.trace) if isinstance(error, PromptError) else ""
        text, short = "\n\n".join(filter(None, [words, trace])), words.splitlines()[0]
        told = any(text == before for _, before in self.report.problems)
        self.report.problems.append((part, f"{short} (as above)" if told else text))
        return short


def main(arguments: Sequence[str]) -> int:
    interrupts_on_terminate()
    at = list(arguments).index("--") if "--" in arguments else len(arguments)
    options, further = verify_parser("dev.py verify").parse_args(arguments[:at]), arguments[at + 1 :]
    checkpoint = options.checkpoint or DEMO
    comfyui, began = Path(os.environ["COMFYUI_PATH"]), time.monotonic()
    (ROOT / ".host").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="verify-", dir=ROOT / ".host", ignore_cleanup_errors=True) as folder:
        base = prepare_base(Path(folder), ROOT)
        link_folder(Path(__file__).absolute().parent / "server_nodes", base / "custom_nodes" / PROBES)
        found = staged(checkpoint, base)
        say("Starting ComfyUI ...")
        given = ("--disable-api-nodes", *found, *further)
        with ComfyServer(comfyui, base_directory=base, extra_args=given, log_path=LOG) as server:
            require_pack(server, server.client.object_info())
            hidden = (base, ROOT, comfyui, checkpoint.parent, Path(sys.prefix), Path.home())
            verification = prepared(server, checkpoint.name, options, lambda text: discreet(text, hidden))
            ended = finished(verification, rounds=1 if options.quick else 3)
    report = verification.report
    page = (options.output or ROOT / ".host" / "verify") / "report.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(html_of(report), encoding="utf-8")
    say(f"\n{text_of(report)}\nDone in {duration(time.monotonic() - began)}: {page}")
    return (0 if report.passed else 1) if ended else 130


def finished(verification: Verification, rounds: int) -> bool:
    """Runs all of it; an interrupted one keeps what it has. -> whether it came to its end"""
    ended = False
    try:
        verification.run(rounds)
        ended = True
    except KeyboardInterrupt:
        verification.report.problems.append(("verify", "interrupted; what came before is here"))
    verification.keep_log()
    return ended


def prepared(server: ComfyServer, name: str, options: Namespace, clean: Callable[[str], str]) -> Verification:
    """What the pack sees in the checkpoint, and what is run on it. Raises Failure for one that it does not take."""
    demo = name == DEMO.name
    steps = options.steps or (QUICK_STEPS if options.quick else STEPS)
    training = options.train_steps or (QUICK_TRAINING if options.quick else TRAINING[demo])
    nodes = Nodes()
    nodes.add("checkpoint", "CheckpointLoaderSimple", ckpt_name=name)
    parts = {"model": ["checkpoint", 0], "clip": ["checkpoint", 1], "vae": ["checkpoint", 2]}
    nodes.add("facts", "DiffStylerVerify_Facts", **parts, steps=steps, halved=options.quick)
    try:
        facts = findings(nodes, server.client.queue(nodes.api))["facts"]
    except PromptError as error:
        raise Failure(
            "open the checkpoint", f"{name}: {error.message}", "give --checkpoint a Stable Diffusion 1, 2 or XL file."
        ) from error
    settings = settings_for(name, facts, steps, training)
    report = Report({key: clean(value) for key, value in about(name, version(), facts, settings).items()})
    for key, value in report.about.items():
        say(f"  {key}: {value}")
    return Verification(server, Bench(server.client, settings, facts), report, clean)


def version() -> str:
    """The pack's, as pyproject.toml says it."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(r'^version = "([^"]+)"', text, re.MULTILINE)
    return "unknown" if found is None else found.group(1)


if __name__ == "__main__":
    run_main(main)
