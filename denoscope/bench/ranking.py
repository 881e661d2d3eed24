"""One number for each method, and which one the benchmark that ships found best."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import pandas as pd

from ..models.arguments import checked
from ..models.errors import UsageError
from .result import EditBenchmark

PARTS = ("efficacy", "generality", "neighbours")
"""What the score is the harmonic mean of (ROME, Meng et al. 2022, table 4)."""
MOST = 0.9
"""A method that refuses more than a tenth of the concepts is not ranked: its means are of other concepts."""
DRAWS = 2000
BEST = "best.json"


@checked
def ranked(found: EditBenchmark, level: float = 0.95) -> pd.DataFrame:
    """Rank methods by the harmonic mean of efficacy, generality and what neighbours keep.

    Intervals are percentiles over resampled concepts, the same ones for all methods, so that ``first`` says
    how often a method would come out first with other concepts of the kind.

    Args:
        found: a benchmark.
        level: of the intervals.

    Returns:
        The best first: method, score, low, high (all 0..1), first (share of resamples), concepts.

    Raises:
        ValueError: if no method takes nine tenths of the concepts.
    """
    cells = found.cells[found.cells["reason"].isna()]
    every = list(dict.fromkeys(found.cells["concept"]))
    columns = [f"{part}_after" for part in PARTS]
    tables = {
        str(name): own.set_index("concept")[columns].astype(float).reindex(every).to_numpy()
        for name, own in cells.groupby("method", sort=False)
        if len(own) >= MOST * len(every)
    }
    if not tables:
        raise UsageError(f"no method takes {MOST:.0%} of the {len(every)} concepts, so none can be ranked")
    values = np.stack(list(tables.values()))
    drawn = np.random.default_rng(0).integers(0, len(every), (DRAWS, len(every)))
    scores = np.stack([_score(values[:, some]) for some in drawn])
    low, high = np.quantile(scores, [(1 - level) / 2, (1 + level) / 2], axis=0)
    first = np.bincount(scores.argmax(1), minlength=len(tables)) / DRAWS
    counts = (~np.isnan(values[..., 0])).sum(1)
    frame = pd.DataFrame(
        {
            "method": list(tables),
            "score": _score(values),
            "low": low,
            "high": high,
            "first": first,
            "concepts": counts,
        }
    )
    return frame.sort_values("score", ascending=False, ignore_index=True, kind="stable")


def _score(values: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Harmonic mean over the last axis of means over concepts, [method, concept, part] -> [method]."""
    means = np.nanmean(values, 1)
    with np.errstate(divide="ignore"):
        return np.asarray(means.shape[-1] / (1 / means).sum(-1))


@dataclass(frozen=True)
class Best:
    """Which method a benchmark found best, among some.

    Args:
        model: that it was measured on.
        method: its name.
        score: harmonic mean of efficacy, generality and what neighbours keep, with its interval.
        low: of the interval.
        high: of the interval.
        first: how often it comes out first with resampled concepts.
        next: the next best.
        next_score: its score.
        concepts: how many were asked for.
        seeds: with so many starting noises each.
    """

    model: str
    method: str
    score: float
    low: float
    high: float
    first: float
    next: str
    next_score: float
    concepts: int
    seeds: int

    @classmethod
    def of(cls, found: EditBenchmark, among: Collection[str]) -> Best:
        """Take the best of some methods from a benchmark.

        Raises:
            ValueError: for fewer than two of them in it.
        """
        frame = ranked(replace(found, cells=found.cells[found.cells["method"].isin(among)]))
        if len(frame) < 2:
            raise UsageError(
                f"only {list(frame['method'])} of {sorted(among)} can be ranked; run two or more"
            )
        one, two = frame.iloc[0], frame.iloc[1]
        numbers = {k: round(float(one[k]), 4) for k in ("score", "low", "high", "first")}
        return cls(
            model=str(found.about["model"]),
            method=str(one["method"]),
            **numbers,
            next=str(two["method"]),
            next_score=round(float(two["score"]), 4),
            concepts=found.cells["concept"].nunique(),
            seeds=len(found.about["seeds"]),
        )

    def why(self, model: str) -> str:
        """Say in words why a model is edited by it."""
        sure = "clearly" if self.first >= 0.95 else f"in {self.first:.0%} of resamples of the concepts"
        said = (
            f"of the methods offered here it came first ({sure}) in a benchmark of {self.concepts} concepts "
            f"with {self.seeds} seeds each on {self.model}: {self.score:.2f} "
            f"({self.low:.2f} to {self.high:.2f}), the harmonic mean of efficacy, generality and what "
            f"neighbours keep; next came {self.next} with {self.next_score:.2f}"
        )
        return said if model == self.model else f"{said}. Nobody has measured that on {model}"


@cache
def best(model: str) -> Best | None:
    """Return the method found best on an embedded model; on ``emoji`` for a model that was not measured."""
    told: Mapping[str, Any] = json.loads(files(__package__).joinpath("data", BEST).read_text())
    kept = told.get(model, told.get("emoji"))
    return None if kept is None else Best(**kept)
