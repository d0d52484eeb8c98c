"""Child processes that are watched while they run and gone when we are."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from .console import StatusLine, duration

WINDOWS = os.name == "nt"
GUARD = Path(__file__).resolve().parent / "guarded_main.py"  # runs a script that ends with us; wants stdin=PIPE
_SHOWN = 90  # characters of a line
_PIP_PROGRESS = re.compile(r"Progress (\d+) of (\d+)$")


class CommandFailed(Exception):
    def __init__(self, command: Sequence[str], code: int, tail: Sequence[str], log: Path) -> None:
        shown = "\n".join(f"    {line}" for line in tail)
        super().__init__(f"'{' '.join(command)}' ended with code {code}. Its last lines:\n{shown}\n  All of it: {log}")
        self.code = code
        self.tail = tuple(tail)


def spawn(command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start a command as the head of its own process group, so that it can be stopped with all it starts."""
    if WINDOWS:
        options.setdefault("creationflags", getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0))
    else:
        options.setdefault("start_new_session", True)
    return subprocess.Popen(list(command), **options)


def stop_tree(process: subprocess.Popen[bytes], patience: float = 5.0) -> None:
    """End a process from `spawn` and its children: asked first, then killed."""
    if WINDOWS:
        if process.poll() is None:
            subprocess.run(["taskkill", "/T", "/F", "/PID", str(process.pid)], capture_output=True, check=False)
        process.wait()
        return
    _signal_group(process, signal.SIGTERM)
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        pass
    finally:
        _signal_group(process, signal.SIGKILL)  # what the head left behind as well
        process.wait()


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):  # nothing of the group is left (macOS answers EPERM for zombies)
        return


def interrupts_on_terminate() -> None:
    """Let a polite kill unwind the stack as Ctrl-C does, so that nothing is left running."""

    def raise_interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, raise_interrupt)
    signal.signal(signal.SIGINT, raise_interrupt)  # a shell that starts us with & has it ignored, here and in children


def run_foreground(
    command: Sequence[str], *, env: Mapping[str, str], cwd: Path, limit: float | None = None, stdin: int | None = None
) -> int | None:
    """Run a command on our terminal. None: it ran past the limit.

    An interrupt is passed on once and waited for; it is ours as well unless the command takes it for a normal end.
    """
    process = spawn(command, env=dict(env), cwd=str(cwd), stdin=stdin)
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        return None
    except KeyboardInterrupt:
        process.send_signal(getattr(signal, "CTRL_BREAK_EVENT", signal.SIGINT) if WINDOWS else signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            if process.wait(30) == 0:
                return 0
        raise
    finally:
        stop_tree(process)
        if process.stdin is not None:
            process.stdin.close()


def run_logged(
    command: Sequence[str], *, log: Path, label: str, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> None:
    """Run a command with its output in `log`; the terminal gets one line with the time and what it is at."""
    log.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    status = StatusLine()
    tail: deque[str] = deque(maxlen=15)
    process = spawn(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=None if env is None else dict(env),
        cwd=None if cwd is None else str(cwd),
    )
    try:
        with log.open("a", encoding="utf-8") as file:
            file.write(f"$ {' '.join(command)}\n")
            now = _Activity()
            for line in _lines(process):
                if line is not None and now.take(line):
                    tail.append(line)
                    file.write(line + "\n")
                status.show(f"  {label}: {duration(time.monotonic() - began)}, {now.text}")
        code = process.wait()
    finally:
        stop_tree(process)
        status.clear()
    if code:
        raise CommandFailed(command, code, tail, log)


class _Activity:
    """What a command is at, from its last line; pip's raw progress counts are put into words."""

    def __init__(self) -> None:
        self.text = "starting"
        self._doing = ""

    def take(self, line: str) -> bool:
        """True when the line is worth keeping."""
        progress = _PIP_PROGRESS.search(line)
        if progress:
            done, total = (int(n) / 1e6 for n in progress.groups())
            self.text = f"{self._doing} {done:.0f} of {total:.0f} MB"
            return False
        if line.strip() and not line.startswith("WARNING"):
            self._doing = self.text = line.strip()[:_SHOWN]
        return bool(line.strip())


def _lines(process: subprocess.Popen[bytes]) -> Any:
    """The lines of a command as they come; None once in a while when there is no new one."""
    lines: queue.Queue[str | None] = queue.Queue()
    stream = process.stdout
    if stream is None:
        raise ValueError("the command must be started with stdout=PIPE")
    reader = threading.Thread(target=_read, args=(stream, lines), daemon=True)
    reader.start()
    while True:
        try:
            line = lines.get(timeout=0.5)
        except queue.Empty:
            yield None
            continue
        if line is None:
            return
        yield line


def _read(stream: IO[bytes], lines: queue.Queue[str | None]) -> None:
    with stream:
        for raw in stream:
            lines.put(raw.decode("utf-8", "replace").rstrip())
    lines.put(None)
