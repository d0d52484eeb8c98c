"""Style from a picture's own attention, without a LoRA: how a run's attention looks at what the style's run held."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..diffusion.shares import percent, require_share, steps_in
from .adain import adain
from .attention import QKV, Mixture, fit_rows
from .capture import Capture
from .settings import Layers
from .sites import Site, format_layers
from .taps import Giver, SiteTensors, Tap

Sharing = Literal["swap", "extend"]
SHARINGS: tuple[Sharing, ...] = ("swap", "extend")
HOTTEST = 10.0
"""The largest attention temperature taken; beyond it a softmax picks single tokens."""


@dataclass(frozen=True)
class StyleID:
    """softmax(tau (gamma q_content + (1 - gamma) q) k_style / sqrt(d)) v_style (Chung et al. 2024, arXiv 2312.09008).

    query_blend: gamma in [0, 1], the content's part of the query (query preservation). temperature: tau; 1 leaves the
    softmax as it is.
    adain_start: whether the start latent takes the style's mean and contrast (initial latent AdaIN).
    """

    query_blend: float = 0.75
    temperature: float = 1.5
    adain_start: bool = True

    def __post_init__(self) -> None:
        if not 0.0 <= self.query_blend <= 1.0:
            raise ValueError(f"query_blend must be a number in 0..1, got {self.query_blend}. The paper uses 0.75.")
        if not 0.0 < self.temperature <= HOTTEST:
            raise ValueError(f"temperature must be a number above 0, at most {HOTTEST:g}, got {self.temperature}.")

    takes = frozenset({1, 2})
    """Of the style's q, k and v."""

    @property
    def takes_queries(self) -> bool:
        """Whether it needs the content's own queries."""
        return self.query_blend > 0.0

    def attention(self, own: QKV, style: QKV, q_content: Tensor | None) -> QKV:
        """What the attention is computed of. style: of one row; q_content: of the rows of ``own``, if it is taken."""
        q = own.q if q_content is None else torch.lerp(own.q, q_content, self.query_blend)
        return QKV(q * self.temperature, _rows(style.k, own), _rows(style.v, own))

    def __str__(self) -> str:
        start = ", AdaIN of the start" if self.adain_start else ""
        return f"StyleID: query blend {self.query_blend:g}, temperature {self.temperature:g}{start}"


@dataclass(frozen=True)
class SharedAttention:
    """A run's attention looks at the style's k and v.

    mode: "swap", instead of its own (Visual Style Prompting: Jeong et al. 2024, arXiv 2402.12974); "extend", beside its
    own in one softmax (StyleAligned: Hertz et al. 2023, arXiv 2312.02133). normalise: its q and k first take the mean
    and spread of the style's over the tokens (StyleAligned, AdaIN of queries and keys).
    """

    mode: Sharing = "extend"
    normalise: bool = True

    takes_queries = False
    adain_start = False

    @property
    def takes(self) -> frozenset[int]:
        """Of the style's q, k and v."""
        return frozenset({0, 1, 2} if self.normalise else {1, 2})

    def __post_init__(self) -> None:
        if self.mode not in SHARINGS:
            raise ValueError(f"mode must be one of {', '.join(SHARINGS)}, got {self.mode!r:.100}.")

    def attention(self, own: QKV, style: QKV, q_content: Tensor | None) -> QKV:
        """What the attention is computed of. style: of one row."""
        q, k = (adain(x, s.to(x), (-2,)) if self.normalise else x for x, s in zip(own[:2], style[:2], strict=True))
        k_style, v_style = _rows(style.k, own), _rows(style.v, own)
        if self.mode == "swap":
            return QKV(q, k_style, v_style)
        return QKV(q, torch.cat([k, k_style], 1), torch.cat([own.v, v_style], 1))

    def __str__(self) -> str:
        return f"shared attention: {self.mode}{', normalised' if self.normalise else ''}"


Method = StyleID | SharedAttention


def _rows(style: Tensor, own: QKV) -> Tensor:
    """One row's tokens [1, tokens, C] for every row of a run's own."""
    return style.to(own.k).expand(len(own.k), -1, -1)


@dataclass(frozen=True)
class ReferencePlan:
    """Where and when a method acts in a run: at these self-attentions, from step ``first`` to before ``last``."""

    method: Method
    sites: tuple[Site, ...]
    first: int
    last: int

    def sites_at(self, step: int) -> frozenset[Site]:
        """Every site that takes something from the style's picture at this step."""
        return frozenset(self.sites) if self.first <= step < self.last else frozenset()

    def require_queries(self, content: Capture | None) -> None:
        """Raises ValueError when there is no capture of the content with the queries that the method takes."""
        if self.method.takes_queries and content is None:
            raise ValueError(
                "query_blend takes the content's queries, and the sampler has a TRAJECTORY without a capture. "
                "Wire Capture Features/Attention of the content into it, or set query_blend to 0."
            )
        if self.method.takes_queries and content is not None:
            _require_taken(content, self, "query_blend takes the content's queries")


@dataclass(frozen=True)
class Reference:
    """A style's own picture as a style. features: its capture, with values.

    layers: decoder layers, None for all that were captured. start, end: shares of the run. in_both: of those, only the
    ones that the content's capture has the queries of, where the method takes them.
    """

    features: Capture
    method: Method
    layers: Layers = None
    start: float = 0.0
    end: float = 1.0
    in_both: bool = False

    def __post_init__(self) -> None:
        require_share(self.start, "start_percent")
        require_share(self.end, "end_percent")
        if self.start >= self.end:
            raise ValueError(
                f"end_percent must lie above start_percent, got {self.start:g} to {self.end:g}: nothing would happen."
            )
        if (count := self.features.trajectory.frame_count) != 1:
            raise ValueError(
                f"style_features: one style picture is expected, got a batch of {count}. "
                "Invert and capture one, with 'Image From Batch'."
            )
        if not self.features.request.values:
            raise ValueError(
                "style_features: kept without values (v). Switch values on in the Capture Features/Attention of the "
                "style's picture."
            )
        if not self.plan().sites:
            raise ValueError("layers: none was given, so nothing would happen. Write them like '6-11', or 'all'.")

    def plan(self, content: Capture | None = None) -> ReferencePlan:
        """Where and when it acts. content: its capture, once it is known.

        Raises ValueError for steps that were not captured, files that are gone, and when the two pictures' captures
        have no layer in common that could be used.
        """
        steps = self.features.trajectory.schedule.steps
        ends = steps_in(self.start, steps), steps_in(self.end, steps)
        sites = self._sites()
        if self.in_both and self.method.takes_queries and content is not None:
            sites = _in_common(sites, content)
        plan = ReferencePlan(self.method, sites, *ends)
        _require_taken(self.features, plan, "the style's attention is taken")
        return plan

    def _sites(self) -> tuple[Site, ...]:
        sites = tuple(site for site in self.features.request.attention_sites if site.kind == "self-attention")
        if self.layers is None:
            return sites
        there = tuple(sorted({site.layer for site in sites}))
        missing = tuple(layer for layer in self.layers if layer not in there)
        if missing:
            raise ValueError(
                f"layers: {format_layers(missing)} are to be used of style_features, which has self-attention layers "
                f"{format_layers(there)}. Capture them too (self_attention_layers), leave them out, or write 'all'."
            )
        return tuple(site for site in sites if site.layer in self.layers)

    def __str__(self) -> str:
        layers = "" if self.layers is None else f", layers {format_layers(self.layers)}"
        window = f", {percent(self.start)} to {percent(self.end)} of the run"
        return f"{self.method}{layers}{'' if (self.start, self.end) == (0.0, 1.0) else window}"


def _in_common(sites: tuple[Site, ...], content: Capture) -> tuple[Site, ...]:
    common = tuple(site for site in sites if site in content.request.attention_sites)
    if not common:
        layers, own = (
            format_layers(tuple(s.layer for s in some if s.kind == "self-attention")) or "none"
            for some in (sites, content.request.attention_sites)
        )
        raise ValueError(
            f"layers: the style's picture was captured at self-attention layers {layers}, the content at {own}: they "
            "have none in common. Set self_attention_layers of both Capture Features/Attention nodes to the same."
        )
    return common


def _require_taken(capture: Capture, plan: ReferencePlan, why: str) -> None:
    """Raises ValueError when a capture lacks one of the plan's sites at one of its steps."""
    for step in range(plan.first, plan.last):
        lacking = plan.sites_at(step) - set(capture.request.sites_at(step))
        if lacking:
            raise ValueError(
                f"step {step}, {min(lacking)}: {why}, but that was not captured. Name the layer in "
                "self_attention_layers of Capture Features/Attention and set attention_end_percent to 1."
            )
        if capture.store is not None:
            capture.store.require(step)


class ReferenceTap:
    """The method of a plan at one step, on top of what the content's injection (or nothing) makes of the attention.

    style, content: what the two pictures' runs hold at this step; content may be empty where no query is taken.
    """

    def __init__(
        self,
        plan: ReferencePlan,
        step: int,
        style: Mapping[Site, SiteTensors],
        content: Mapping[Site, SiteTensors],
        below: Tap | None = None,
    ) -> None:
        self._here = plan.sites_at(step)
        self.sites = self._here | (frozenset() if below is None else below.sites)
        self.given: Mapping[Site, Giver] = {} if below is None else below.given
        self.tapped = self._here | (frozenset() if below is None else below.tapped)
        self._method, self._style, self._content, self._below = plan.method, style, content, below

    def feature(self, site: Site, hidden: Tensor) -> Tensor:
        """The hidden state, as the injection has it."""
        return hidden if self._below is None else self._below.feature(site, hidden)

    def attention(self, site: Site, own: QKV) -> Mixture:
        """What the injection computes the attention of, each of it looking at the style's k and v."""
        below = self._below if self._below is not None and site in self._below.sites else None
        mixture = Mixture(own) if below is None else below.attention(site, own)
        if site not in self._here:
            return mixture
        style = QKV(*self._style[site])
        q_content = fit_rows(self._content[site][0], own.q, site) if self._method.takes_queries else None
        return mixture.of(lambda qkv: self._method.attention(qkv, style, q_content))
