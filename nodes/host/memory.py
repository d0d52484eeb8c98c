"""Where a node's bulk data may lie: RAM that is still free, and a temporary folder."""

from __future__ import annotations

import math
import uuid
from pathlib import Path

import comfy.memory_management
import comfy.model_management
import folder_paths
import torch


def room_in_memory(wanted: int) -> float:
    """Bytes of RAM that a capture may still take; a tenth of what is free is left to everything else.

    The host lets go of cached results that this prompt does not use, where fewer than ``wanted`` bytes are free.
    """
    comfy.memory_management.extra_ram_release(math.ceil(wanted / 0.9))
    return 0.9 * comfy.model_management.get_free_memory(torch.device("cpu"))


def new_temporary_folder() -> Path:
    """A name that nothing has yet, below the host's temp directory, which it empties when it starts."""
    return Path(folder_paths.get_temp_directory()) / "diffstyler" / uuid.uuid4().hex
