"""torchmetrics and torch_fidelity, imported when first needed and without what they do to other packages."""

from __future__ import annotations

import importlib
import logging
import sys
from typing import Any

from .available import NotAvailable


def metric_module(name: str) -> Any:
    """A module of torchmetrics or torch_fidelity. Raises NotAvailable when the package is not installed.

    torchmetrics gives numpy, PIL and scipy.signal old names back and logs on its own: all of that is undone, as other
    packs may look for those names.
    """
    if name in sys.modules:
        return sys.modules[name]
    package = name.split(".")[0]
    spots = [("numpy", "Inf"), ("PIL", "PILLOW_VERSION"), ("scipy.signal", "hamming")]
    absent = [spot for spot in spots if not hasattr(sys.modules.get(spot[0]), spot[1])]
    try:
        found = importlib.import_module(name)
    except ImportError as error:
        raise NotAvailable(
            f"the package {package.replace('_', '-')} is not installed ({error}). Install the pack's requirements.txt"
        ) from error
    for module, attribute in absent:
        if hasattr(sys.modules.get(module), attribute):
            delattr(sys.modules[module], attribute)
    logging.getLogger(package).handlers.clear()
    return found
