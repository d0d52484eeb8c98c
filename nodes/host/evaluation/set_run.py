"""The run of an evaluation: one pair after the other, whatever was done before taken from the table."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import comfy.model_management
from torch import Tensor

from ....diffstyler_core.metrics.pixels import NotAvailable
from .measures import (
    CLIP,
    COLOUR,
    CONTENT_VARIATION,
    EDGES,
    L2,
    LAYERS,
    LPIPS,
    PSNR,
    SSIM,
    TEXTURE,
    VARIATION,
    Look,
    Metric,
    Region,
    Tools,
    attempt,
    look_at_style,
    measure,
    need,
)
from .pairs import matched
from .set_features import KeptFeatures
from .set_files import Plan, Skipped, Task, digest, read_picture
from .set_table import REASONS, PairTable, reasons_of

T = TypeVar("T")
METRICS: tuple[Metric, ...] = (
    PSNR, SSIM, L2, LPIPS, EDGES, VARIATION, CONTENT_VARIATION, COLOUR, TEXTURE, LAYERS, CLIP,
)  # fmt: skip
FID = "fid"
VERSION = 1
"""Of the figures' definitions: rows of another version are computed again."""


def named(path: Path, compute: Callable[[], T]) -> T:
    """The value; a NotAvailable names the file."""
    try:
        return compute()
    except NotAvailable as why:
        raise NotAvailable(f"{path.name}: {why}") from why


class Settings(NamedTuple):
    """What the figures depend on besides the pictures. identity: the weights', in words."""

    size: int
    tools: Tools
    identity: str


@dataclass
class Done:
    """What came of a run.

    missing: why a figure is not there, by its key. results, styles: features of each pair, unless FID is missing.
    fresh: rows that were computed in this run.
    """

    rows: list[dict[str, str]] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    results: list[Tensor] = field(default_factory=list)
    styles: list[Tensor] = field(default_factory=list)
    fresh: int = 0


class Evaluation:
    """Measures the pairs of a plan in the order of their styles. ``folder`` is the results' name in the table."""

    def __init__(
        self, folder: str, table: PairTable, settings: Settings, features: KeptFeatures | NotAvailable
    ) -> None:
        self._folder, self._table, self._settings, self._features = folder, table, settings, features
        self._digest = lru_cache(maxsize=None)(digest)
        self._picture = lru_cache(maxsize=2)(lambda path: read_picture(path, settings.size))
        self._look = lru_cache(maxsize=1)(self._style_look)
        self._lacking = self._without_weights()

    def run(self, plan: Plan, on_pair: Callable[[int], None]) -> Done:
        """All pairs. A file that cannot be read costs its own pairs only."""
        done = Done(skipped=list(plan.skipped), missing=dict(self._lacking))
        for number, task in enumerate(plan.tasks, 1):
            comfy.model_management.throw_exception_if_processing_interrupted()
            try:
                self._pair(task, done)
            except NotAvailable as why:
                done.skipped.append(Skipped(task.result.name, str(why)))
            on_pair(number)
        self._table.tidy(self._folder, {self._name(task) for task in plan.tasks})
        return done

    def _without_weights(self) -> dict[str, str]:
        """Why figures are not there that need weights."""
        lpips, clip = self._settings.tools
        users = {LPIPS.key: lpips, LAYERS.key: lpips, CLIP.key: clip, FID: self._features}
        return {key: str(tool) for key, tool in users.items() if isinstance(tool, NotAvailable)}

    def _pair(self, task: Task, done: Done) -> None:
        key = self._key(task)
        row = self._table.find(self._name(task), key)
        if row is None:
            row = self._table.append(self._measured(task, key))
            done.fresh += 1
        done.rows.append(row)
        done.missing.update(reasons_of(row) or {})
        if FID not in done.missing:
            self._add_features(task, done)

    def _add_features(self, task: Task, done: Done) -> None:
        """FID is of all pairs: where one has no features there is none."""
        found = attempt(lambda: [self._feature(path) for path in (task.result, task.style)])
        if isinstance(found, NotAvailable):
            done.missing[FID] = str(found)
            return
        result, style = found
        done.results.append(result)
        done.styles.append(style)

    def _measured(self, task: Task, key: str) -> dict[str, object]:
        result, content = self._read(task.result), self._read(task.content)
        try:
            pair = matched(result, content)
        except ValueError as error:  # two shapes
            raise NotAvailable(str(error)) from error
        look = self._look(task.style, min(pair.result.shape[:2]))
        figures = measure(pair.result, pair.content, [look], self._settings.tools, [Region("whole")])
        row: dict[str, object] = {f.metric.key: f.value for f in figures}
        reasons = {f.metric.key: f.why for f in figures if f.value is None and f.metric.key not in self._lacking}
        names = {"result": self._name(task), "content": task.content.name, "style": task.style.name, "key": key}
        return {**row, **names, REASONS: reasons}

    def _feature(self, path: Path) -> Tensor:
        features, made = need(self._features), self._digest(path)
        return named(path, lambda: features.features(made, lambda: self._picture(path)))

    def _style_look(self, style: Path, shorter: int) -> Look:
        return look_at_style(self._read(style), shorter, self._settings.tools)

    def _read(self, path: Path) -> Tensor:
        return named(path, lambda: self._picture(path))

    def _name(self, task: Task) -> str:
        return f"{self._folder}/{task.result.name}"

    def _key(self, task: Task) -> str:
        digests = [named(path, partial(self._digest, path)) for path in task]
        parts = [*digests, self._settings.size, self._settings.identity, VERSION]
        return hashlib.blake2b(" ".join(map(str, parts)).encode(), digest_size=8).hexdigest()
