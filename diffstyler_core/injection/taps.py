"""Taps: what listens to, or speaks into, a UNet's sites during one evaluation.

A tap knows nothing of the UNet that it is attached to. Whoever attaches it calls ``feature`` with the hidden state
and ``attention`` with the projected q, k and v of each of its ``sites``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from types import MappingProxyType
from typing import Protocol

import torch
from torch import Tensor

from .attention import QKV, Mixture, fit_rows, fit_tokens, mix, mix_rows, repeated
from .plan import InjectionPlan
from .sites import Site

SiteTensors = tuple[Tensor, ...]
"""What one site holds: (hidden [B, C, H, W],) for a feature, (q, k) [B, tokens, C] for an attention.

A self-attention taken with values holds (q, k, v).
"""


def held_at(site: Site, values: bool) -> int:
    """How many tensors a site holds: a feature one, an attention two (q, k), self-attention with values three."""
    if site.kind == "feature":
        return 1
    return 3 if values and site.kind == "self-attention" else 2


class Giver(Protocol):
    """What knows a site's hidden state, or its q and k, whatever the UNet would compute there."""

    def feature(self, site: Site, hidden: Tensor) -> Tensor: ...

    def projected(self, site: Site, index: int, x: Tensor) -> Tensor: ...


class Tap(Protocol):
    """Something attached to the sites of a UNet for one evaluation.

    sites: all of them. given: those that need not be computed, with what gives them. tapped: those where it must see
    what was computed.
    """

    @property
    def sites(self) -> frozenset[Site]: ...

    @property
    def given(self) -> Mapping[Site, Giver]: ...

    @property
    def tapped(self) -> frozenset[Site]: ...

    def feature(self, site: Site, hidden: Tensor) -> Tensor: ...

    def attention(self, site: Site, own: QKV) -> Mixture: ...


class Recorder:
    """Takes a copy of every site and changes nothing.

    keep: how a tensor is kept, e.g. as fp16 on the CPU. It must return a tensor of its own.
    values: whether self-attention's v is taken too.
    """

    given: Mapping[Site, Giver] = MappingProxyType({})

    def __init__(
        self, sites: frozenset[Site], keep: Callable[[Tensor], Tensor] = Tensor.clone, values: bool = False
    ) -> None:
        self.sites = self.tapped = sites
        self._values = values
        self.taken: dict[Site, SiteTensors] = {}
        self._keep = keep

    def feature(self, site: Site, hidden: Tensor) -> Tensor:
        """Keeps the ResBlock's hidden state f_t^l."""
        self.taken[site] = (self._keep(hidden),)
        return hidden

    def attention(self, site: Site, own: QKV) -> Mixture:
        """Keeps q and k, and v where it is asked for; the attention goes on as it would."""
        self.taken[site] = tuple(self._keep(x) for x in own[: held_at(site, self._values)])
        return Mixture(own)


class _Whole:
    """The content's tensors in place of the style run's, whatever those are."""

    def __init__(self, content: Mapping[Site, SiteTensors]) -> None:
        self._content = content

    def feature(self, site: Site, hidden: Tensor) -> Tensor:
        """Overrides the hidden state [B, C, H, W] of every row by f_t^l (eq. 4)."""
        (content,) = self._content[site]
        if content.shape[1:] != hidden.shape[1:]:
            raise ValueError(
                f"{site}: the content was captured at {tuple(content.shape[1:])}, this run has "
                f"{tuple(hidden.shape[1:])}. Use a start latent of the content's size and no area conditioning."
            )
        return repeated(content.to(hidden), len(hidden), site)

    def projected(self, site: Site, index: int, x: Tensor) -> Tensor:
        """The content's q (0) or k (1) for every row of what would be projected, x [B, tokens, any]."""
        content = self._content[site][index]
        return fit_tokens(content.to(x), (*x.shape[:2], content.shape[2]), site)


class Injector:
    """Puts the content's features and attention in place of the style run's (eq. 6), for one step of a plan."""

    def __init__(self, plan: InjectionPlan, step: int, t: float, content: Mapping[Site, SiteTensors]) -> None:
        self.sites = plan.sites_at(step, t)
        missing = sorted(self.sites - content.keys())
        if missing:
            raise ValueError(f"step {step} needs the {missing[0]}, which was not captured; capture it as well.")
        self._blend = plan.blend
        self._kappa = plan.kappa(step, t)
        self._content = content
        whole = _Whole(content)
        self.given: Mapping[Site, Giver] = {site: whole for site in self.sites if self._gives(site)}
        self.tapped = self.sites - self.given.keys()

    def _gives(self, site: Site) -> bool:
        """Not cross-attention's q and k: a picture's tokens may join a prompt's once those are projected."""
        return site.kind == "feature" or (site.kind == "self-attention" and self._kappa == 0.0)

    def feature(self, site: Site, hidden: Tensor) -> Tensor:
        """Overrides the hidden state [B, C, H, W] of every row by f_t^l (eq. 4)."""
        return self.given[site].feature(site, hidden)

    def attention(self, site: Site, own: QKV) -> Mixture:
        """Blends the content's q, k (or its attention map) into every row (eq. 5)."""
        q_content, k_content = self._content[site][:2]
        q_content, k_content = fit_rows(q_content, own.q, site), fit_rows(k_content, own.k, site)
        return mix(own, q_content, k_content, self._kappa, self._blend)


class ByChunk:
    """A tap of its own for each of as many equal chunks of a batch; None leaves its chunk as it is.

    Neighbouring chunks of one tap are given to it together.
    """

    def __init__(self, taps: Sequence[Tap | None]) -> None:
        acting = [tap for tap in taps if tap is not None]
        self.given: frozenset[Site] = frozenset().union(*(tap.given for tap in acting))
        self.tapped: frozenset[Site] = frozenset().union(*(tap.tapped for tap in acting))
        self._taps = tuple(taps)

    def givers(self, site: Site) -> list[Giver | None]:
        """Of each chunk what gives a site; None where it is computed."""
        return [None if tap is None else tap.given.get(site) for tap in self._taps]

    def feature(self, site: Site, hidden: Tensor) -> Tensor:
        """Each chunk's hidden states [B, C, H, W] through its own tap."""
        runs = self._runs(site)
        if len(runs) == 1:
            return hidden if runs[0][0] is None else runs[0][0].feature(site, hidden)
        parts = zip(runs, hidden.split(self._rows(runs, hidden)), strict=True)
        return torch.cat([rows if tap is None else tap.feature(site, rows) for (tap, _), rows in parts])

    def attention(self, site: Site, own: QKV) -> list[Mixture]:
        """Each chunk's rows through its own tap: mixtures of the batch's rows, one after the other."""
        runs = self._runs(site)
        if len(runs) == 1:
            return [Mixture(own) if runs[0][0] is None else runs[0][0].attention(site, own)]
        rows = self._rows(runs, own.q)
        parts = zip(runs, *(x.split(rows) for x in own), strict=True)
        chunks = [(tap, QKV(*qkv)) for (tap, _), *qkv in parts]
        return mix_rows([Mixture(qkv) if tap is None else tap.attention(site, qkv) for tap, qkv in chunks])

    def _runs(self, site: Site) -> list[tuple[Tap | None, int]]:
        """(tap, number of its neighbouring chunks), None for those that do not act on this site."""
        acting = [tap if tap is not None and site in tap.sites else None for tap in self._taps]
        return [(tap, len(list(group))) for tap, group in groupby(acting)]

    def _rows(self, runs: Sequence[tuple[Tap | None, int]], batch: Tensor) -> list[int]:
        size, odd = divmod(len(batch), len(self._taps))
        if odd:
            raise RuntimeError(f"a batch of {len(batch)} rows cannot be shared by {len(self._taps)} equal chunks.")
        return [size * chunks for _, chunks in runs]
