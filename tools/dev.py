#!/usr/bin/env python3
"""The developer's and the visitor's one command.

    python3 tools/dev.py demo            run the one-style workflow on a real server and look at the pictures
    python3 tools/dev.py test            lint, imports, types and all tests
    python3 tools/dev.py test core host  some of them; what follows -- goes to pytest
    python3 tools/dev.py test --comfyui 0.24.0         the suites on an older ComfyUI
    python3 tools/dev.py test browser --frontend newest   the browser tests on the index's newest frontend
    python3 tools/dev.py bench           speed beside other ways to do the same job; --memory: at SD1.5's size
    python3 tools/dev.py verify          self-checks, speed and the paper's ablation on your checkpoint, in one report
    python3 tools/dev.py gallery         the README's pictures, made anew by the workflows
    python3 tools/dev.py compare dual-style   two styles in one picture, four ways, as the document compares them
    python3 tools/dev.py compare clips        how steady short clips are, with and without shared attention
    python3 tools/dev.py compare settings     which layers and windows suit the demo checkpoint, on all pairs
    python3 tools/dev.py compare methods      the LoRA way, StyleID, shared attention and InST, on all pairs
    python3 tools/dev.py setup           only the set-up
    python3 tools/dev.py run -- ...      the environment's Python with these arguments

With DIFFSTYLER_RENEW_SNAPSHOT=1, 'test host -- -k snapshot' takes the nodes' inputs and outputs as they are now for
those that saved workflows and API prompts rely on (tests/host/snapshot.json).

Needs Python 3.10 or newer and a package index, nothing else. The ComfyUI is the one in COMFYUI_PATH (with the Python in
COMFYUI_PYTHON), or the one that the pack lies in, or one that is set up under .host/.
"""

import sys

if sys.version_info < (3, 10):  # noqa: UP036  (a message instead of a syntax error)
    sys.exit(
        "Stage 'start' failed: this is Python {}.{}.\n"
        "What to do: run it with Python 3.10 or newer, for instance 'python3.12 tools/dev.py'.".format(
            *sys.version_info
        )
    )

import argparse
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).absolute().parent.parent))

from tools.bench.options import bench_parser
from tools.devkit import checks, frontends, host, older_host
from tools.devkit.base import prepare_base
from tools.devkit.console import Failure, say
from tools.devkit.demo_options import demo_parser
from tools.devkit.process import GUARD, interrupts_on_terminate, run_foreground
from tools.devkit.testing import add_test_options, chosen_parts, wanted_frontends
from tools.verify.options import verify_parser

# Not resolved: where the pack is linked into a ComfyUI, the way it was called through tells which.
ROOT = Path(__file__).absolute().parent.parent
COMPARISONS = {
    "clips": "compare_clips.py",
    "dual-style": "compare_dual_style.py",
    "methods": "compare_methods.py",
    "settings": "compare_settings.py",
}


def main(arguments: Sequence[str]) -> int:
    interrupts_on_terminate()
    known, rest = _split(arguments)
    if known[:1] == ["demo"]:
        return demo(known[1:])
    if known[:1] == ["gallery"]:
        return gallery(known[1:])
    if known[:1] == ["verify"]:
        return verify(known[1:], rest)
    if known[:1] == ["compare"]:
        return compare(known[1:])
    if known[:1] == ["bench"]:
        return bench(known[1:])
    options = _parser().parse_args(known)
    if options.command == "test":
        return test(options, rest)
    if options.command == "run":
        return run(rest)
    return setup()


def setup() -> int:
    found = host.prepare(ROOT, os.environ)
    prepare_base(ROOT / ".host" / "base", ROOT)
    say(f"ComfyUI: {found.comfyui}\nPython:  {found.python}")
    return 0


def demo(arguments: Sequence[str]) -> int:
    demo_parser("dev.py demo").parse_args(arguments)
    found = host.prepare(ROOT, os.environ)
    prepare_base(ROOT / ".host" / "base", ROOT)
    command = [str(found.python), str(GUARD), str(ROOT / "tools" / "demo.py"), *arguments]
    env = found.environment(os.environ)
    return run_foreground(command, env=env, cwd=Path.cwd(), stdin=subprocess.PIPE) or 0


def gallery(arguments: Sequence[str]) -> int:
    found = host.prepare(ROOT, os.environ)
    command = [str(found.python), str(GUARD), str(ROOT / "tools" / "gallery.py"), *arguments]
    return run_foreground(command, env=found.environment(os.environ), cwd=Path.cwd(), stdin=subprocess.PIPE) or 0


def verify(arguments: Sequence[str], further: Sequence[str]) -> int:
    verify_parser("dev.py verify").parse_args(arguments)
    found = host.prepare(ROOT, os.environ)
    command = [str(found.python), str(GUARD), str(ROOT / "tools" / "verify" / "main.py"), *arguments, "--", *further]
    return run_foreground(command, env=found.environment(os.environ), cwd=Path.cwd(), stdin=subprocess.PIPE) or 0


def compare(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] not in COMPARISONS:
        raise Failure("compare", f"what to compare is one of {', '.join(COMPARISONS)}", "name it first")
    found = host.prepare(ROOT, os.environ)
    command = [str(found.python), str(GUARD), str(ROOT / "tools" / COMPARISONS[arguments[0]]), *arguments]
    return run_foreground(command, env=found.environment(os.environ), cwd=Path.cwd(), stdin=subprocess.PIPE) or 0


def bench(arguments: Sequence[str]) -> int:
    bench_parser("dev.py bench").parse_args(arguments)
    found = host.prepare(ROOT, os.environ, extras=("dev",))
    command = [str(found.python), str(GUARD), str(ROOT / "tools" / "bench" / "main.py"), *arguments]
    return run_foreground(command, env=found.environment(os.environ), cwd=Path.cwd(), stdin=subprocess.PIPE) or 0


def test(options: argparse.Namespace, pytest_args: Sequence[str]) -> int:
    parts = chosen_parts(ROOT, options.parts, options.comfyui, options.frontend)
    found = host.prepare(ROOT, os.environ, extras=("dev",))
    prepare_base(ROOT / ".host" / "base", ROOT)
    wanted = wanted_frontends(parts, options.frontend)
    builds = {part: frontends.prepare(ROOT, found.python, version) for part, version in wanted.items()}
    if options.comfyui:
        found = host.Host(*older_host.prepare(ROOT, found.python, options.comfyui))
    return checks.Checks(ROOT, found, os.environ, pytest_args, builds).run(parts)


def run(arguments: Sequence[str]) -> int:
    found = host.prepare(ROOT, os.environ)
    command = [str(found.python), *(arguments[1:] if arguments[:1] in (["python"], ["python3"]) else arguments)]
    env = found.environment(os.environ)
    if os.name != "nt":
        os.execve(command[0], command, env)  # the terminal is wholly its own
    return run_foreground(command, env=env, cwd=Path.cwd()) or 0


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """What is ours, and what follows the first --."""
    if "--" not in arguments:
        return list(arguments), []
    at = list(arguments).index("--")
    return list(arguments[:at]), list(arguments[at + 1 :])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dev.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="demo|test|verify|bench|gallery|compare|setup|run"
    )
    commands.add_parser("demo", help="see: dev.py demo --help")
    commands.add_parser("verify", help="check the pack on your machine and checkpoint; see: dev.py verify --help")
    commands.add_parser("gallery", help="make the README's pictures; see: dev.py gallery --help")
    commands.add_parser("compare", help="what documents compare, anew; see: dev.py compare --help")
    commands.add_parser("bench", help="measure speed and memory beside other ways; see: dev.py bench --help")
    add_test_options(commands.add_parser("test", help="run the checks and tests"))
    commands.add_parser("setup", help="only set up the host")
    commands.add_parser("run", help="run the environment's Python: dev.py run -- ARGUMENTS")
    return parser


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Failure as failure:
        sys.stderr.write(f"\n{failure}\n")
        sys.exit(1)
    except KeyboardInterrupt as interrupt:
        sys.stderr.write(f"\n{str(interrupt) or 'Interrupted.'}\n")
        sys.exit(130)
