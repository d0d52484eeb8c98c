"""Taps: what listens to, or speaks into, a UNet's sites during one evaluation.

A tap knows nothing of the UNet that it is attached to. Whoever attaches it calls ``feature`` with the hidden state
and ``attention`` with the projected q and k of each of its ``sites``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Protocol

import torch
from torch import Tensor

from .attention import Mixture, fit_rows, mix, mix_rows
from .plan import InjectionPlan
from .sites import Site

SiteTensors = tuple[Tensor, ...]
"""What one site holds: (hidden [1, C, H, W],) for a feature, (q, k) [1, tokens, C] for an attention."""


class Tap(Protocol):
    """Something attached to the sites of a UNet for one evaluation."""

    @property
    def sites(self) -> frozenset[Site]: ...

    def feature(self, site: Site, hidden: Tensor) -> Tensor: ...

    def attention(self, site: Site, q: Tensor, k: Tensor) -> Mixture: ...


class Recorder:
    """Takes a copy of every site and changes nothing.

    keep: how a tensor is kept, e.g. as fp16 on the CPU. It must return a tensor of its own.
    """

    def __init__(self, sites: frozenset[Site], keep: Callable[[Tensor], Tensor] = Tensor.clone) -> None:
        self.sites = sites
        self.taken: dict[Site, SiteTensors] = {}
        self._keep = keep

    def feature(self, site: Site, hidden: Tensor) -> Tensor:
        """Keeps the ResBlock's hidden state f_t^l."""
        self.taken[site] = (self._keep(hidden),)
        return hidden

    def attention(self, site: Site, q: Tensor, k: Tensor) -> Mixture:
        """Keeps q and k; the attention goes on as it would."""
        self.taken[site] = (self._keep(q), self._keep(k))
        return Mixture(q, k)


class Injector:
    """Puts the content's features and attention in place of the style run's (eq. 6), for one step of a plan."""

    def __init__(self, plan: InjectionPlan, step: int, t: int, content: Mapping[Site, SiteTensors]) -> None:
        self.sites = plan.sites_at(step, t)
        missing = sorted(self.sites - content.keys())
        if missing:
            raise ValueError(f"step {step} needs the {missing[0]}, which was not captured; capture it as well.")
        self._blend = plan.blend
        self._kappa = plan.kappa(step, t)
        self._content = content

    def feature(self, site: Site, hidden: Tensor) -> Tensor:
        """Overrides the hidden state [B, C, H, W] of every row by f_t^l (eq. 4)."""
        (content,) = self._content[site]
        if content.shape[1:] != hidden.shape[1:]:
            raise ValueError(
                f"{site}: the content was captured at {tuple(content.shape[1:])}, this run has "
                f"{tuple(hidden.shape[1:])}. Use a start latent of the content's size and no area conditioning."
            )
        return content.to(hidden).expand_as(hidden)

    def attention(self, site: Site, q: Tensor, k: Tensor) -> Mixture:
        """Blends the content's q, k (or its attention map) into every row (eq. 5)."""
        q_content, k_content = self._content[site]
        q_content, k_content = fit_rows(q_content, q, site), fit_rows(k_content, k, site)
        return mix(q, k, q_content, k_content, self._kappa, self._blend)


class ByChunk:
    """A tap of its own for each of as many equal chunks of a batch; None leaves its chunk as it is.

    Neighbouring chunks of one tap are given to it together.
    """

    def __init__(self, taps: Sequence[Tap | None]) -> None:
        self.sites: frozenset[Site] = frozenset().union(*(tap.sites for tap in taps if tap is not None))
        self._taps = tuple(taps)

    def feature(self, site: Site, hidden: Tensor) -> Tensor:
        """Each chunk's hidden states [B, C, H, W] through its own tap."""
        runs = self._runs(site)
        if len(runs) == 1:
            return hidden if runs[0][0] is None else runs[0][0].feature(site, hidden)
        parts = zip(runs, hidden.split(self._rows(runs, hidden)), strict=True)
        return torch.cat([rows if tap is None else tap.feature(site, rows) for (tap, _), rows in parts])

    def attention(self, site: Site, q: Tensor, k: Tensor) -> Mixture:
        """Each chunk's q and k [B, tokens, C] through its own tap, as one mixture of the whole batch."""
        runs = self._runs(site)
        if len(runs) == 1:
            return Mixture(q, k) if runs[0][0] is None else runs[0][0].attention(site, q, k)
        rows = self._rows(runs, q)
        parts = zip(runs, q.split(rows), k.split(rows), strict=True)
        return mix_rows([Mixture(*qk) if tap is None else tap.attention(site, *qk) for (tap, _), *qk in parts])

    def _runs(self, site: Site) -> list[tuple[Tap | None, int]]:
        """(tap, number of its neighbouring chunks), None for those that do not act on this site."""
        acting = [tap if tap is not None and site in tap.sites else None for tap in self._taps]
        return [(tap, len(list(group))) for tap, group in groupby(acting)]

    def _rows(self, runs: Sequence[tuple[Tap | None, int]], batch: Tensor) -> list[int]:
        size, odd = divmod(len(batch), len(self._taps))
        if odd:
            raise RuntimeError(f"a batch of {len(batch)} rows cannot be shared by {len(self._taps)} equal chunks.")
        return [size * chunks for _, chunks in runs]
