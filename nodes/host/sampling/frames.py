"""Batches of contents, as frames of a video are: how many are worked on at once, and what steps are called then."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from ....diffstyler_core.metrics.pixels import latent_psnr
from ....diffstyler_core.styles.style import Style, Styles


class Group(NamedTuple):
    """Frames from ``start`` to before ``stop``, of ``total``."""

    start: int
    stop: int
    total: int

    def of(self, frames: Tensor) -> Tensor:
        """This group of tensors [total, ...]."""
        return frames[self.start : self.stop]

    def step(self, name: str = "step") -> str:
        """What the node calls a step of this group: 'frames 5 to 8 of 12, step'."""
        if self.total == self.stop - self.start:
            return name
        which = f"frame {self.stop}" if self.stop - self.start == 1 else f"frames {self.start + 1} to {self.stop}"
        return f"{which} of {self.total}, {name}"


def groups_of(count: int, at_once: int) -> list[Group]:
    """The frames in groups of so many; 0: all at once. Raises ValueError for a negative number."""
    if isinstance(at_once, bool) or not isinstance(at_once, int) or at_once < 0:
        raise ValueError(f"frames_at_once must be 0 (all of them) or more, got {at_once!r:.60}.")
    size = at_once or count
    return [Group(start, min(start + size, count), count) for start in range(0, count, size)]


def styles_of(styles: Styles, group: Group) -> Styles:
    """The chain with the features and masks that styles have for every frame, of this group."""
    return tuple(_of(style, group) for style in styles)


def _of(style: Style, group: Group) -> Style:
    own, mask = style.features, style.mask
    if own is not None and own.trajectory.frame_count == group.total:
        own = own.frames(group.start, group.stop)
    if mask is not None and mask.ndim == 3:
        mask = group.of(mask)
    return style._replace(features=own, mask=mask)


def psnr_words(frames: Tensor, others: Tensor) -> str:
    """'31.2 dB', or of several frames the mean and the worst: '31.2 dB (frame 3: 28.0)'."""
    each: Sequence[float] = [latent_psnr(a, b) for a, b in zip(frames, others, strict=True)]
    mean, worst = sum(each) / len(each), min(range(len(each)), key=each.__getitem__)
    return f"{mean:.1f} dB" if len(each) == 1 else f"{mean:.1f} dB (worst, frame {worst + 1}: {each[worst]:.1f})"
