"""What an evaluation comes to: FID, ArtFID, the means over its pairs, and what is not there and why."""

from __future__ import annotations

import math
import statistics
from typing import NamedTuple

import torch

from ..metrics.available import NotAvailable, value_or_reason
from ..metrics.frechet import artfid, frechet_distance
from .csv_table import csv_text
from .metric import ARTFID, FID, LPIPS, Metric
from .set_features import FEATURES
from .set_plan import Plan
from .set_run import METRICS, SetResult

HEADER = ("figure", "better", "mean", "deviation", "pairs", "not_available")
NAMED = 10
"""Skipped files that are named in the text."""


class Score(NamedTuple):
    """A figure of the whole set, or why there is none. deviation: of its pairs, where it is their mean."""

    metric: Metric
    value: float | None
    pairs: int
    deviation: float | None = None
    why: str = ""


def scores_of(result: SetResult, network: str) -> list[Score]:
    """FID by the network of that name, ArtFID, and the mean of each figure over the pairs that have it."""
    means = [_mean(metric, result) for metric in METRICS]
    fid = _fid(result, FID._replace(name=", ".join(filter(None, (FID.name, network)))))
    lpips = next(score for score in means if score.metric == LPIPS)
    return [fid, _artfid(fid, lpips), *means]


def _fid(result: SetResult, metric: Metric) -> Score:
    """Each style counts as often as it has results."""
    value = value_or_reason(_frechet, result)
    if isinstance(value, NotAvailable):
        return Score(metric, None, 0, why=str(value))
    return Score(metric, value, len(result.pairs))


def _frechet(result: SetResult) -> float:
    """FID is of all pairs: where one has no features there is none."""
    if FID.key in result.lacking:
        raise NotAvailable(result.lacking[FID.key])
    features = [pair.features for pair in result.pairs]
    there = [found for found in features if not isinstance(found, NotAvailable)]
    missing = [found for found in features if isinstance(found, NotAvailable)]
    if missing or not there:
        raise missing[0] if missing else NotAvailable("no pair could be measured")
    return frechet_distance(torch.stack([f.result for f in there]), torch.stack([f.style for f in there]))


def _artfid(fid: Score, lpips: Score) -> Score:
    lacking = [score for score in (lpips, fid) if score.value is None]
    if lacking or fid.value is None or lpips.value is None:
        return Score(ARTFID, None, 0, why="; ".join(f"{score.metric.name}: {score.why}" for score in lacking))
    if lpips.pairs != fid.pairs:
        return Score(ARTFID, None, 0, why=f"LPIPS is of {lpips.pairs} pairs and FID of {fid.pairs}")
    return Score(ARTFID, artfid(lpips.value, fid.value), fid.pairs)


def _mean(metric: Metric, result: SetResult) -> Score:
    values = [float(pair.row[metric.key]) for pair in result.pairs if pair.row[metric.key]]
    finite = [value for value in values if math.isfinite(value)]
    if not values:
        return Score(metric, None, 0, why=result.reason(metric) or "no pair has it")
    deviation = statistics.stdev(finite) if len(finite) == len(values) > 1 else None
    return Score(metric, statistics.fmean(values), len(values), deviation)


def scores_table(scores: list[Score]) -> str:
    """CSV: a row for each figure; mean is empty where it is not available, and the last column says why."""
    cells = [[float(v) if v is not None else "" for v in (s.value, s.deviation)] for s in scores]
    rows = [(s.metric.key, s.metric.better, *c, s.pairs, s.why) for s, c in zip(scores, cells, strict=True)]
    return csv_text(HEADER, rows)


def describe(plan: Plan, result: SetResult, scores: list[Score]) -> str:
    """The set in words: how many pairs, its figures, what is not available, what was skipped."""
    pairs, fresh = len(result.pairs), sum(pair.fresh for pair in result.pairs)
    lines = [
        f"{pairs} pairs of {plan.contents} contents x {plan.styles} styles = {plan.contents * plan.styles} "
        f"combinations; {fresh} computed now, {pairs - fresh} taken from the table"
    ]
    lines += [_line(score, pairs) for score in scores if score.value is not None]
    # With fewer pictures than features FID is far from its value for many, and depends on their number.
    few = [score.pairs for score in scores if score.metric.key == FID.key and 0 < score.pairs < FEATURES]
    lines += [f"FID of {count} pictures: compare it only with FIDs of as many" for count in few]
    lines += [f"not available: {score.metric.name}: {score.why}" for score in scores if score.value is None]
    return "\n".join([*lines, *_skipped(result)])


def _skipped(result: SetResult) -> list[str]:
    if not result.skipped:
        return []
    more = "" if len(result.skipped) <= NAMED else f" and {len(result.skipped) - NAMED} more"
    first = f"skipped {len(result.skipped)}{more and f' (the first {NAMED})'}:"
    return [first, *(f"- {name}: {why}" for name, why in result.skipped[:NAMED])]


def _line(score: Score, pairs: int) -> str:
    deviation = "" if score.deviation is None else f" (deviation {score.deviation:.3g})"
    part = "" if score.pairs == pairs else f", of {score.pairs} pairs only"
    better = f", {score.metric.better} is better" if score.metric.better else ""
    return f"{score.metric.name}: {score.value:.4g}{deviation}{part}{better}"
