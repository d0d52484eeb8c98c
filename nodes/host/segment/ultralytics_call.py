"""ultralytics for one call: imported where it is needed, offline, and with everything that it changes put back."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import folder_paths
import numpy as np
import PIL.Image
import torch

MISSING = object()
EVENTS = ("ultralytics.utils.events", "ultralytics.hub.utils")  # where its telemetry lives (8.4 and 8.3)
PATCHED = ((torch, ("save", "load")), (PIL.Image, ("open",)))
INSTALL = f"{sys.executable} -m pip install 'ultralytics>=8.3,<9'"


def config_folder() -> Path:
    """Where ultralytics writes its settings file on import, unless the user has set YOLO_CONFIG_DIR."""
    return Path(folder_paths.get_temp_directory()) / "DiffStyler" / "ultralytics"


@contextmanager
def ultralytics_at_work() -> Iterator[ModuleType]:
    """The ultralytics package, with no network, no installs and no telemetry.

    On leaving, also by an error: environment, ``torch.save``, ``torch.load``, ``Image.open``, cv2's functions and
    threads, torch's threads, print options and warning filters are what they were.
    Raises ImportError with the command to run when the package is missing.
    """
    if importlib.util.find_spec("ultralytics") is None:
        raise ImportError(f"Mask by FastSAM needs the package ultralytics (AGPL-3.0), which is missing. Run: {INSTALL}")
    with ExitStack() as stack:
        stack.enter_context(_environment())
        stack.enter_context(warnings.catch_warnings())
        stack.enter_context(_print_options())
        stack.enter_context(_threads())
        cv2 = importlib.import_module("cv2")
        for owner, names in (*PATCHED, (cv2, ("imread", "imwrite", "imshow"))):
            stack.enter_context(_attributes(owner, names))
        package = importlib.import_module("ultralytics")
        importlib.import_module("ultralytics.models.fastsam")  # the rest of what patches on import
        stack.enter_context(_silent())
        yield package


@contextmanager
def _environment() -> Iterator[None]:
    before = dict(os.environ)
    try:
        os.environ.update(YOLO_OFFLINE="1", YOLO_AUTOINSTALL="False", YOLO_VERBOSE="False")
        os.environ.setdefault("YOLO_CONFIG_DIR", str(config_folder()))
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update({name: value for name, value in before.items() if os.environ.get(name) != value})


@contextmanager
def _attributes(owner: Any, names: tuple[str, ...]) -> Iterator[None]:
    before = {name: getattr(owner, name, MISSING) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is not MISSING and getattr(owner, name, MISSING) is not value:
                setattr(owner, name, value)


@contextmanager
def _print_options() -> Iterator[None]:
    before = dict(vars(torch._tensor_str.PRINT_OPTS))
    try:
        with np.printoptions():
            yield
    finally:
        vars(torch._tensor_str.PRINT_OPTS).update(before)


@contextmanager
def _threads() -> Iterator[None]:
    cv2 = importlib.import_module("cv2")
    before = torch.get_num_threads(), cv2.getNumThreads()
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


@contextmanager
def _silent() -> Iterator[None]:
    """Telemetry off, also when another pack has imported ultralytics with it on."""
    with ExitStack() as stack:
        for name in EVENTS:
            events: Any = getattr(sys.modules.get(name), "events", None)
            if hasattr(events, "enabled"):
                stack.enter_context(_attributes(events, ("enabled",)))
                events.enabled = False
        yield
