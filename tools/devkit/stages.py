"""Set-up stages that are done once: each leaves a stamp, and is redone when what it depends on has changed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .console import Failure, duration, say
from .process import CommandFailed

GB = 1e9


@dataclass(frozen=True)
class Stage:
    name: str
    title: str
    takes: str  # for the person who waits: "about 2 minutes"
    needs_gb: float
    inputs: Callable[[], Sequence[str]]  # everything the result depends on, apart from the stages before
    act: Callable[[], None]
    remedy: str
    intact: Callable[[], bool] = lambda: True  # a quick look at what the stage left


@dataclass(frozen=True)
class Stamp:
    key: str
    token: str  # new each time the stage is done: what was built upon it is then redone
    seconds: float


class Ledger:
    """The stamps of the finished stages, one small file each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, name: str) -> Stamp | None:
        try:
            found: Any = json.loads((self.folder / f"{name}.json").read_text(encoding="utf-8"))
            return Stamp(str(found["key"]), str(found["token"]), float(found["seconds"]))
        except (FileNotFoundError, ValueError, KeyError, TypeError):  # none, or not one of ours: not done
            return None

    def write(self, name: str, stamp: Stamp) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        half = self.folder / f"{name}.json.half"
        half.write_text(json.dumps(stamp.__dict__), encoding="utf-8")
        os.replace(half, self.folder / f"{name}.json")

    def forget(self, name: str) -> None:
        (self.folder / f"{name}.json").unlink(missing_ok=True)


def pending(stages: Sequence[Stage], ledger: Ledger) -> list[Stage]:
    """The first stage that is not done or not valid any more, and all after it."""
    tokens: list[str] = []
    for index, stage in enumerate(stages):
        stamp = ledger.read(stage.name)
        if stamp is None or not stage.intact() or stamp.key != _key(stage, tokens):
            return list(stages[index:])
        tokens.append(stamp.token)
    return []


def run(stages: Sequence[Stage], ledger: Ledger, room: Path) -> None:
    """Do what is left to do. `room` is the folder that the stages fill."""
    if not pending(stages, ledger):
        return
    with _one_at_a_time(room):
        left = pending(stages, ledger)  # another run may have done them while we waited
        require_free_disk(room, sum(stage.needs_gb for stage in left))
        tokens = [_token(ledger, stage) for stage in stages[: len(stages) - len(left)]]
        for number, stage in enumerate(left, 1):
            say(f"[{number}/{len(left)}] {stage.title} ({stage.takes})")
            tokens.append(_do(stage, tokens, ledger))


def require_free_disk(room: Path, needed_gb: float, free: Callable[[Path], int] | None = None) -> None:
    have = (free or (lambda path: shutil.disk_usage(path).free))(_existing(room)) / GB
    if have < needed_gb:
        raise Failure(
            "free disk",
            f"what is left to set up needs about {needed_gb:.1f} GB in {room}, and {have:.1f} GB are free.",
            "free some space or put the clone on another disk; or use a ComfyUI that you have: set COMFYUI_PATH to its "
            "folder and COMFYUI_PYTHON to its Python.",
        )


def _do(stage: Stage, tokens: Sequence[str], ledger: Ledger) -> str:
    ledger.forget(stage.name)  # from here on it is half done
    began = time.monotonic()
    try:
        stage.act()
    except KeyboardInterrupt:
        words = f"Interrupted in stage '{stage.name}'. Run the same command again: finished stages are kept."
        raise KeyboardInterrupt(words) from None
    except Failure as failure:
        raise Failure(stage.name, failure.reason, failure.remedy) from failure
    except (CommandFailed, OSError) as error:
        raise Failure(stage.name, str(error), stage.remedy) from error
    stamp = Stamp(_key(stage, tokens), uuid.uuid4().hex, time.monotonic() - began)
    ledger.write(stage.name, stamp)
    say(f"      done in {duration(stamp.seconds)}")
    return stamp.token


def _key(stage: Stage, tokens: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps([list(tokens), list(stage.inputs())]).encode()).hexdigest()


def _token(ledger: Ledger, stage: Stage) -> str:
    stamp = ledger.read(stage.name)
    if stamp is None:
        raise Failure(stage.name, "its stamp vanished while the set-up ran.", "run the same command again.")
    return stamp.token


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())


@contextmanager
def _one_at_a_time(room: Path) -> Iterator[None]:
    """Hold the set-up lock of a folder; the system lets go of it even when we are killed."""
    room.mkdir(parents=True, exist_ok=True)
    with (room / "setup.lock").open("a+") as file:
        if not _try_lock(file.fileno()):
            say(f"Another set-up is at work in {room}: waiting for it.")
            while not _try_lock(file.fileno()):
                time.sleep(1)
        yield


def _try_lock(descriptor: int) -> bool:
    try:
        if os.name == "nt":
            import msvcrt

            windows: Any = msvcrt
            os.lseek(descriptor, 0, os.SEEK_SET)
            windows.locking(descriptor, windows.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # somebody has it
        return False
    return True
