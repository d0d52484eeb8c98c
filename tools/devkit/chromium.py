"""Where a Chromium that can be driven is."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge", "microsoft-edge")
MISSING = (
    "no Chromium found. Install one (Debian: apt install chromium; anywhere: playwright install chromium), or set "
    "DIFFSTYLER_CHROMIUM to its program"
)


def find_chromium(environ: Mapping[str, str] | None = None) -> Path | None:
    """DIFFSTYLER_CHROMIUM, a browser on the PATH, in its usual place, or one that playwright installed; or None."""
    environ = os.environ if environ is None else environ
    named = environ.get("DIFFSTYLER_CHROMIUM")
    if named:
        return Path(named) if Path(named).is_file() else None
    on_path = next((found for name in NAMES if (found := shutil.which(name, path=environ.get("PATH")))), None)
    if on_path:
        return Path(on_path)
    return next((path for path in _usual_places(environ) if path.is_file()), None)


def _usual_places(environ: Mapping[str, str]) -> list[Path]:
    home = Path.home()
    if sys.platform == "darwin":
        programs = (
            "Google Chrome.app/Contents/MacOS/Google Chrome",
            "Chromium.app/Contents/MacOS/Chromium",
            "Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
        )
        fixed = [root / program for root in (Path("/Applications"), home / "Applications") for program in programs]
        cache, pattern = home / "Library/Caches/ms-playwright", "chromium-*/chrome-mac*/*.app/Contents/MacOS/*"
    elif os.name == "nt":
        roots = [environ[name] for name in ("PROGRAMFILES", "PROGRAMFILES(X86)", "LOCALAPPDATA") if name in environ]
        tails = ("Google/Chrome/Application/chrome.exe", "Microsoft/Edge/Application/msedge.exe")
        fixed = [Path(root) / tail for root in roots for tail in tails]
        cache, pattern = Path(environ.get("LOCALAPPDATA", home)) / "ms-playwright", "chromium-*/chrome-win*/chrome.exe"
    else:
        fixed = [Path("/snap/bin/chromium")]
        cache, pattern = home / ".cache/ms-playwright", "chromium-*/chrome-linux*/chrome"
    return [*fixed, *sorted(cache.glob(pattern), reverse=True)]
