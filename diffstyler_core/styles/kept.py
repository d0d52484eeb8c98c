"""The content kept outside of the styles' regions, whatever the sampler (DiffStyler 2026, eq. 7)."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from ..diffusion.trajectory import Trajectory
from .regions import as_seen_from, localize, put_back


class KeptContent(NamedTuple):
    """Outside of ``inside`` a run is the content's own path at every noise level, and its result is the content.

    inside: [h, w] or [B, h, w], the share of all styles together; between 0 and 1 the two are blended. Latents are
    [B, C, h, w].
    """

    trajectory: Trajectory
    inside: Tensor

    def shown(self, x: Tensor, sigma: float) -> Tensor:
        """What the model is shown of a variance-exploding x: outside, the content's path at this noise level."""
        return localize(x, self.trajectory.exploding_at(sigma), self.inside)

    def answer(self, x: Tensor, shown: Tensor, x0: Tensor, sigma: float, after: float) -> Tensor:
        """What the sampler gets for the model's x0 of ``shown``: outside the content; at soft edges what takes a
        first-order sampler from its x to where eq. 7 takes it, at the noise level ``after``. (A sampler that adds noise
        of its own: ``after`` is what its step keeps of eps, in the variance-exploding scale.)"""
        return put_back(as_seen_from(x, shown, x0, sigma, after), self.content(x), self.inside)

    def blended(self, x0: Tensor) -> Tensor:
        """A picture's latent with the content around it, soft edges blended."""
        return localize(x0, self.content(x0), self.inside)

    def content(self, like: Tensor) -> Tensor:
        """The content's latent, in the type and on the device of another."""
        return self.trajectory.content.to(like)
