"""What pairs of words tell, kind by kind, and how kinds differ."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar, TypeAlias

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray
from scipy.special import stdtrit

from ...models.arguments import checked
from ...models.drawn import Figure, figure
from ...models.errors import UsageError
from ...models.html import frame_table, panel
from ..intervals import interval
from ..stored import Stored

Array: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PairKinds(Stored):
    """Partial information decompositions of pairs of words, kind by kind.

    Args:
        data: ``nats`` [pair, part, seed] of pictures, and ``cells``, the parts of each cell of the latents,
            added up; ``kind`` and ``prompt`` [pair]. Parts as in ``Decomposition``.
    """

    needed: ClassVar[frozenset[str]] = frozenset({"nats", "cells", "kind", "given_rest", "estimator"})

    def __repr__(self) -> str:
        kinds = ", ".join(f"{len(some)} {kind}" for kind, some in self._kinds())
        return f"PairKinds({kinds}; {self.data.sizes['seed']} seeds; {self.data.attrs['estimator']})"

    def _repr_html_(self) -> str:
        frame = self.summary()
        return panel(repr(self), frame_table(frame))

    @property
    def nats(self) -> xr.DataArray:
        """Parts of the whole picture [pair, part, seed]."""
        return self.data["nats"]

    @property
    def cells(self) -> xr.DataArray:
        """Parts of each cell, added up [pair, part, seed]."""
        return self.data["cells"]

    @checked
    def to_frame(self, level: float = 0.95) -> pd.DataFrame:
        """Return a table of pairs: kind, prompt, pair, part, mean over seeds with its interval, in nats.

        Args:
            level: how often such intervals hold the true mean over seeds.
        """
        frame = interval(self.nats, ["seed"], level).to_dataframe().reset_index()
        return frame[["kind", "prompt", "pair", "part", "mean", "low", "high"]]

    @checked
    def summary(self, level: float = 0.95) -> pd.DataFrame:
        """Return a table of kinds: kind, part, pairs, mean over pairs and seeds with its interval, in nats.

        ``share`` is the mean part over the mean total, ``share low`` and ``share high`` its interval.

        Args:
            level: how often such intervals hold the true mean over pairs and seeds.
        """
        tables = []
        for kind, some in self._kinds():
            values = self.nats.isel(pair=some).drop_vars(["kind", "prompt"])
            told = interval(values, ["pair", "seed"], level)
            share = interval(values, ["pair", "seed"], level, denominator=values.sel(part="total", drop=True))
            named = {"mean": "share", "low": "share low", "high": "share high"}
            frame = xr.merge([told, share.rename(named)], combine_attrs="drop").to_dataframe().reset_index()
            tables.append(frame.assign(kind=kind, pairs=len(some)))
        columns = ["kind", "part", "pairs", "mean", "low", "high", "share", "share low", "share high"]
        return pd.concat(tables)[columns].reset_index(drop=True)

    @checked
    def contrasts(self, level: float = 0.95) -> pd.DataFrame:
        """Return how far kinds are apart: kind, other, part, difference of their means, low, high, in nats.

        Welch's interval: pairs are what is drawn, each by its mean over seeds; NaN for a kind of one pair.

        Args:
            level: how often such intervals hold the true difference, over pairs of such kinds.

        Raises:
            ValueError: for one kind alone, and a level that makes no interval.
        """
        kinds = list(self._kinds())
        if len(kinds) < 2:
            raise UsageError(f"there is one kind, {kinds[0][0]!r}; a contrast is of two: give another")
        if not 0 < level < 1:
            raise UsageError(f"level is {level}; it lies between 0 and 1, like 0.95")
        mean, parts, rows = self.nats.mean("seed"), self.nats["part"].values, []
        for (kind, some), (other, others) in combinations(kinds, 2):
            x, y = (mean.isel(pair=pairs).transpose("pair", "part").values for pairs in (some, others))
            rows += [
                (kind, other, str(part), *told) for part, told in zip(parts, _welch(x, y, level), strict=True)
            ]
        return pd.DataFrame(rows, columns=["kind", "other", "part", "difference", "low", "high"])

    def plot(self) -> Figure:
        """Return a figure of the parts and their sum, kind by kind, ``analysis.plots.effect_bars``."""
        frame = self.summary()
        frame = frame[~frame["part"].str.startswith("information")]
        return figure("effect_bars", frame.rename(columns={"kind": "measure", "part": "when"}))

    def _kinds(self) -> Iterator[tuple[str, list[int]]]:
        """Each kind, and which pairs are of it."""
        kinds = [str(k) for k in self.data["kind"].values]
        for kind in dict.fromkeys(kinds):
            yield kind, [i for i, k in enumerate(kinds) if k == kind]


def _welch(x: Array, y: Array, level: float) -> list[tuple[float, float, float]]:
    """The difference of means over the first axis, and Welch's interval (1947), column by column."""
    difference = x.mean(0) - y.mean(0)
    if min(len(x), len(y)) < 2:
        return [(float(d), np.nan, np.nan) for d in difference]
    a, b = (v.var(0, ddof=1) / len(v) for v in (x, y))
    spread = a**2 / (len(x) - 1) + b**2 / (len(y) - 1)
    freedom = np.divide((a + b) ** 2, spread, out=np.ones_like(a), where=spread > 0)
    half = stdtrit(freedom, (1 + level) / 2) * np.sqrt(a + b)
    return [(float(d), float(d - h), float(d + h)) for d, h in zip(difference, half, strict=True)]
