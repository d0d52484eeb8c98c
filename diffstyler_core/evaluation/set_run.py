"""The run of an evaluation: one pair after the other, whatever was done before taken from the table."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from ..metrics.available import NotAvailable, reasons_of, value_or_reason
from .appearance import Appearance, Networks, style_appearance
from .measures import measure
from .metric import (
    CLIP,
    COLOUR,
    CONTENT_VARIATION,
    EDGES,
    FID,
    L2,
    LAYERS,
    LPIPS,
    PSNR,
    SSIM,
    TEXTURE,
    VARIATION,
    Metric,
)
from .pairs import matched
from .regions import Region
from .set_features import KeptFeatures
from .set_plan import Plan, Skipped, Task
from .set_table import REASONS, PairTable, row_reasons

METRICS: tuple[Metric, ...] = (
    PSNR, SSIM, L2, LPIPS, EDGES, VARIATION, CONTENT_VARIATION, COLOUR, TEXTURE, LAYERS, CLIP,
)  # fmt: skip
VERSION = 1
"""Of the figures' definitions: rows of another version are computed again."""


class Files(NamedTuple):
    """How picture files are seen. Both raise NotAvailable for a file that cannot be read.

    digest: of a file's bytes. read: its picture [H, W, 3] in 0..1, the shorter side scaled to a size (0: as it is).
    """

    digest: Callable[[Path], str]
    read: Callable[[Path, int], Tensor]


class Settings(NamedTuple):
    """What the figures depend on besides the pictures. identity: the weights', in words."""

    size: int
    networks: Networks
    identity: str


class PairFeatures(NamedTuple):
    """[2048] of a result and of its style."""

    result: Tensor
    style: Tensor


class MeasuredPair(NamedTuple):
    """A row of the table; fresh: computed in this run. features: for FID, or why there are none."""

    row: dict[str, str]
    fresh: bool
    features: PairFeatures | NotAvailable


class SetResult(NamedTuple):
    """What came of a run. lacking: why figures are not there that need weights, by their keys."""

    pairs: list[MeasuredPair]
    skipped: list[Skipped]
    lacking: dict[str, str]

    def reason(self, metric: Metric) -> str:
        """Why no pair has this figure."""
        own = (row_reasons(pair.row) or {} for pair in reversed(self.pairs))
        return next((found[metric.key] for found in own if metric.key in found), self.lacking.get(metric.key, ""))


class Evaluation:
    """Measures the pairs of a plan in the order of their styles. ``folder`` is the results' name in the table."""

    def __init__(
        self, folder: str, table: PairTable, settings: Settings, features: KeptFeatures | NotAvailable, files: Files
    ) -> None:
        self._folder, self._table, self._settings, self._features = folder, table, settings, features
        self._digest = lru_cache(maxsize=None)(files.digest)
        self._picture = lru_cache(maxsize=2)(lambda path: files.read(path, settings.size))
        self._style = lru_cache(maxsize=1)(self._style_appearance)
        lpips, clip = settings.networks
        users = {LPIPS: lpips, LAYERS: lpips, CLIP: clip, FID: features}
        self._lacking = {metric.key: str(why) for metric, why in users.items() if isinstance(why, NotAvailable)}

    def run(self, plan: Plan, on_pair: Callable[[int], None]) -> SetResult:
        """All pairs. A file that cannot be read costs its own pairs only.

        on_pair: told how many pairs are done, before the first and after each; what it raises ends the run.
        """
        pairs, skipped = [], list(plan.skipped)
        on_pair(0)
        for number, task in enumerate(plan.tasks, 1):
            pair = value_or_reason(self._pair, task)
            if isinstance(pair, NotAvailable):
                skipped.append(Skipped(task.result.name, str(pair)))
            else:
                pairs.append(pair)
            on_pair(number)
        self._table.tidy(self._folder, {self._name(task) for task in plan.tasks})
        return SetResult(pairs, skipped, self._lacking)

    def _pair(self, task: Task) -> MeasuredPair:
        key = self._key(task)
        known = self._table.find(self._name(task), key)
        row = self._table.append(self._measured(task, key)) if known is None else known
        return MeasuredPair(row, known is None, value_or_reason(self._pair_features, self._features, task))

    def _pair_features(self, kept: KeptFeatures, task: Task) -> PairFeatures:
        return PairFeatures(self._file_features(kept, task.result), self._file_features(kept, task.style))

    def _file_features(self, kept: KeptFeatures, path: Path) -> Tensor:
        made_of = self._digest(path)
        with reasons_of(path.name):
            return kept.features(made_of, partial(self._picture, path))

    def _measured(self, task: Task, key: str) -> dict[str, object]:
        result, content = self._read(task.result), self._read(task.content)
        try:
            pair = matched(result, content)
        except ValueError as error:  # two shapes
            raise NotAvailable(str(error)) from error
        style = self._style(task.style, min(pair.result.shape[:2]))
        figures = measure(pair.result, pair.content, [style], self._settings.networks, Region())
        row: dict[str, object] = {f.metric.key: f.value for f in figures}
        reasons = {f.metric.key: f.why for f in figures if f.value is None and f.metric.key not in self._lacking}
        names = {"result": self._name(task), "content": task.content.name, "style": task.style.name, "key": key}
        return {**row, **names, REASONS: reasons}

    def _style_appearance(self, style: Path, shorter: int) -> Appearance:
        return style_appearance(self._read(style), shorter, self._settings.networks)

    def _read(self, path: Path) -> Tensor:
        with reasons_of(path.name):
            return self._picture(path)

    def _name(self, task: Task) -> str:
        return f"{self._folder}/{task.result.name}"

    def _key(self, task: Task) -> str:
        parts = [*map(self._named_digest, task), self._settings.size, self._settings.identity, VERSION]
        return hashlib.blake2b(" ".join(map(str, parts)).encode(), digest_size=8).hexdigest()

    def _named_digest(self, path: Path) -> str:
        with reasons_of(path.name):
            return self._digest(path)
