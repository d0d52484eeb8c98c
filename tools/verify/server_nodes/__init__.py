"""Nodes that `dev.py verify` puts beside the pack in its own private server: they look at what other nodes made.

The host loads this folder as a custom node pack; nobody's ComfyUI has it. What each finds is JSON on the node.
"""

from __future__ import annotations

from .facts import CaptureSize, Facts, Held, State
from .latents import Compare, Decibels, Digest, LeftHalf, Perturbed
from .passing import Again, Peak

NODE_CLASS_MAPPINGS = {
    f"DiffStylerVerify_{node.__name__}": node
    for node in (Again, CaptureSize, Compare, Decibels, Digest, Facts, Held, LeftHalf, Peak, Perturbed, State)
}
