"""The page runs the frontend that it was told to."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.mark.every_frontend
@pytest.mark.skipif("DIFFSTYLER_FRONTEND" not in os.environ, reason="it is the one that the host pins")
def test_it_is_the_one_that_was_asked_for(page):
    assert page.evaluate("window.__COMFYUI_FRONTEND_VERSION__") == Path(os.environ["DIFFSTYLER_FRONTEND"]).name
