"""How far a node is, and whether it should stop."""

import comfy.model_management
from comfy.utils import ProgressBar

__all__ = ["ProgressBar", "stop_if_cancelled"]


def stop_if_cancelled() -> None:
    """Raises the host's InterruptProcessingException, a BaseException, when the user has pressed Cancel."""
    comfy.model_management.throw_exception_if_processing_interrupted()
