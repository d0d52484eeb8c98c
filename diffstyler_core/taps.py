"""Taps: what listens to, or speaks into, a UNet's sites during one evaluation.

A tap knows nothing of the UNet that it is attached to. Whoever attaches it calls ``feature`` with the hidden state
and ``attention`` with the projected q, k, v of each of its ``sites``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from torch import Tensor

from .attention import Attend, fit_rows, inject_attention
from .plan import InjectionPlan
from .sites import Site

SiteTensors = tuple[Tensor, ...]
"""What one site holds: (hidden [1, C, H, W],) for a feature, (q, k) [1, tokens, C] for an attention."""


class Tap(Protocol):
    """Something attached to the sites of a UNet for one evaluation."""

    @property
    def sites(self) -> frozenset[Site]: ...

    def feature(self, site: Site, hidden: Tensor) -> Tensor: ...

    def attention(self, site: Site, q: Tensor, k: Tensor, v: Tensor, attend: Attend) -> Tensor: ...


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

    def attention(self, site: Site, q: Tensor, k: Tensor, v: Tensor, attend: Attend) -> Tensor:
        """Keeps q and k; the attention goes on as it would."""
        self.taken[site] = (self._keep(q), self._keep(k))
        return attend(q, k, v)


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

    def attention(self, site: Site, q: Tensor, k: Tensor, v: Tensor, attend: Attend) -> Tensor:
        """Blends the content's q, k (or its attention map) into every row (eq. 5)."""
        q_content, k_content = self._content[site]
        q_content, k_content = fit_rows(q_content, q, str(site)), fit_rows(k_content, k, str(site))
        return inject_attention(q, k, v, q_content, k_content, self._kappa, self._blend, attend)
