"""Which ComfyUI runs the tests, and what of them an older one cannot."""

from __future__ import annotations

import comfyui_version
import pytest

HERE = comfyui_version.__version__


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:3])


def _lacks(version: str, what: str) -> str:
    return f"ComfyUI {HERE} lacks {what}; {version} has it"


def needs_host(version: str, what: str) -> pytest.MarkDecorator:
    """Skips a test on a ComfyUI before `version` (one that is known to have it), and says what that one lacks."""
    return pytest.mark.skipif(_numbers(HERE) < _numbers(version), reason=_lacks(version, what))


def require_host(version: str, what: str) -> None:
    """The same for a whole module, before it imports what an older ComfyUI lacks."""
    if _numbers(HERE) < _numbers(version):
        pytest.skip(_lacks(version, what), allow_module_level=True)
