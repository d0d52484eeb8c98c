"""What an evaluation comes to: FID, ArtFID, the means over its pairs, and what is not there and why."""

from __future__ import annotations

import math
import statistics
from typing import NamedTuple

import torch

from ....diffstyler_core.evaluation.analysis import csv_text
from ....diffstyler_core.metrics.frechet import artfid, frechet_distance
from ....diffstyler_core.metrics.pixels import NotAvailable
from .measures import LPIPS, attempt
from .set_files import Plan
from .set_run import FID, METRICS, Done

HEADER = ("figure", "better", "mean", "deviation", "pairs", "not_available")
FEW = 2048
"""Below as many pictures as features FID is far from its value for many, and depends on their number."""
NAMED = 10
"""Skipped files that are named in the text."""


class Score(NamedTuple):
    """A figure of the whole set. deviation: of its pairs, where it is their mean."""

    key: str
    name: str
    better: str
    value: float | None
    deviation: float | None
    pairs: int
    why: str = ""


def scores_of(done: Done, network: str) -> list[Score]:
    """FID by the network of that name, ArtFID, and the mean of each figure over the pairs that have it."""
    means = [_mean(metric.key, metric.name, metric.better, done) for metric in METRICS]
    fid = _fid(done, network)
    lpips = next(score for score in means if score.key == LPIPS.key)
    return [fid, _artfid(fid, lpips), *means]


def _fid(done: Done, network: str) -> Score:
    """Each style counts as often as it has results."""

    def compute() -> float:
        if FID in done.missing:
            raise NotAvailable(done.missing[FID])
        if not done.results:
            raise NotAvailable("no pair could be measured")
        return frechet_distance(torch.stack(done.results), torch.stack(done.styles))

    name = ", ".join(filter(None, ("FID", network)))
    value = attempt(compute)
    if isinstance(value, NotAvailable):
        return Score(FID, name, "lower", None, None, 0, str(value))
    return Score(FID, name, "lower", value, None, len(done.results))


def _artfid(fid: Score, lpips: Score) -> Score:
    lacking = [score for score in (lpips, fid) if score.value is None]
    if lacking or fid.value is None or lpips.value is None:
        why = "; ".join(f"{score.name}: {score.why}" for score in lacking)
        return Score("artfid", "ArtFID", "lower", None, None, 0, why)
    if lpips.pairs != fid.pairs:
        why = f"LPIPS is of {lpips.pairs} pairs and FID of {fid.pairs}"
        return Score("artfid", "ArtFID", "lower", None, None, 0, why)
    return Score("artfid", "ArtFID", "lower", artfid(lpips.value, fid.value), None, fid.pairs)


def _mean(key: str, name: str, better: str, done: Done) -> Score:
    values = [float(row[key]) for row in done.rows if row[key]]
    finite = [value for value in values if math.isfinite(value)]
    if not values:
        return Score(key, name, better, None, None, 0, done.missing.get(key, "no pair has it"))
    mean = statistics.fmean(values)
    deviation = statistics.stdev(finite) if len(finite) == len(values) > 1 else None
    return Score(key, name, better, mean, deviation, len(values))


def scores_table(scores: list[Score]) -> str:
    """CSV: a row for each figure; mean is empty where it is not available, and the last column says why."""
    cells = [[float(v) if v is not None else "" for v in (s.value, s.deviation)] for s in scores]
    return csv_text(HEADER, [(s.key, s.better, *c, s.pairs, s.why) for s, c in zip(scores, cells, strict=True)])


def describe(plan: Plan, done: Done, scores: list[Score]) -> str:
    """The set in words: how many pairs, its figures, what is not available, what was skipped."""
    lines = [
        f"{len(done.rows)} pairs of {plan.contents} contents x {plan.styles} styles = "
        f"{plan.contents * plan.styles} combinations; {done.fresh} computed now, "
        f"{len(done.rows) - done.fresh} taken from the table"
    ]
    lines += [_line(score, len(done.rows)) for score in scores if score.value is not None]
    few = [score.pairs for score in scores if score.key == FID and 0 < score.pairs < FEW]
    lines += [f"FID of {pairs} pictures: compare it only with FIDs of as many" for pairs in few]
    lines += [f"not available: {score.name}: {score.why}" for score in scores if score.value is None]
    if done.skipped:
        more = "" if len(done.skipped) <= NAMED else f" and {len(done.skipped) - NAMED} more"
        lines.append(f"skipped {len(done.skipped)}{more and f' (the first {NAMED})'}:")
        lines += [f"- {name}: {why}" for name, why in done.skipped[:NAMED]]
    return "\n".join(lines)


def _line(score: Score, pairs: int) -> str:
    deviation = "" if score.deviation is None else f" (deviation {score.deviation:.3g})"
    part = "" if score.pairs == pairs else f", of {score.pairs} pairs only"
    better = f", {score.better} is better" if score.better else ""
    return f"{score.name}: {score.value:.4g}{deviation}{part}{better}"
