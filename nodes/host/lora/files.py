"""The files of models/loras that this pack opens: which there are, and one of them in memory."""

from __future__ import annotations

import folder_paths
import safetensors.torch

from ....diffstyler_core.lora.schedule import Lora
from ..identity import model_stamp
from ..paths import model_file, shortened

NO_LORA = "none"
FOLDER = "loras"
SUFFIX = ".safetensors"


def lora_names() -> list[str]:
    """All that are safetensors."""
    return [name for name in folder_paths.get_filename_list(FOLDER) if name.endswith(SUFFIX)]


def lora_from_file(name: str) -> Lora:
    """The LoRA of a file in models/loras, in memory: a file that changes while it is in use changes nothing.

    Links are followed wherever they lead, as the host's own loader does: people keep their LoRAs elsewhere.
    Raises ValueError for another type, a name that no file can have, a missing or an unreadable file.
    """
    if not name.endswith(SUFFIX):
        raise ValueError(f"lora_name must be a {SUFFIX} file, got {shortened(name)}: convert it first.")
    path = model_file(FOLDER, name, "lora_name", (SUFFIX,), links=True)
    if path is None:
        raise ValueError(
            f"lora_name: there is no {shortened(name)} in models/{FOLDER}; refresh the list and choose another."
        )
    try:
        return safetensors.torch.load(path.read_bytes())
    except Exception as error:
        raise ValueError(
            f"lora_name: {shortened(name)} cannot be read as safetensors ({error}). Train or fetch it again."
        ) from error


def file_fingerprint(lora_name: str) -> str:
    """A changed file is another LoRA, though its name is the same. Empty when there is none: executing says so."""
    return model_stamp(FOLDER, lora_name)
