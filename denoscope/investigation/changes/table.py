"""All changes side by side: what each reached, what else it moved, what it cost, and which is best."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ...analysis.edit_evaluation.appearance import AT_A_GLANCE
from ...analysis.intervals import interval, proportion
from ...models.errors import StateError
from ...models.store.disk import write_bytes
from .judging import NOTHING, OUTRIGHT

BESIDE = (NOTHING, OUTRIGHT)
OVER = ["prompt", "seed"]


@dataclass(frozen=True, eq=False)
class Changes:
    """What changes came to.

    Args:
        data: of ``judging.judged``.
        told: what each change is, by name.
        skipped: (analysis, why it offers nothing), and changes that could not be painted.
    """

    data: xr.Dataset
    told: Mapping[str, Mapping[str, Any]]
    skipped: tuple[tuple[str, str], ...] = ()

    @property
    def judged(self) -> bool:
        """Whether a judge said what pictures show."""
        return bool(self.data.attrs["judged"])

    @property
    def goal_said(self) -> str:
        """What the changes are for, in words."""
        return str(self.data.attrs["goal_said"])

    @property
    def names(self) -> list[str]:
        """The changes that were painted, without what stands beside them."""
        return [n for n in map(str, self.data["change"].values) if n not in BESIDE]

    def to_frame(self, level: float = 0.95) -> pd.DataFrame:
        """Return a row for each change, and for nothing and asking outright; numbers with low and high.

        ``efficacy``: share of pictures of the edited wording that show what is wanted; of a balance, how even
        the two attributes are: 1 for halves, 0 for one alone. ``generality``: the same in other wordings.
        ``specificity``: share of pictures of other things that show themselves. ``unmoved``: share of these
        that look as before at a glance. ``quality``: fit with the text that should be shown. ``where`` the
        weights change, ``size``: how many numbers, ``rows``: of the denoiser to find strength or direction.
        Intervals are of prompts and seeds, and not of the choice of the best.
        """
        rows = []
        for name in map(str, self.data["change"].values):
            own = self.data.sel(change=name)
            told = self.told.get(name, {})
            row: dict[str, Any] = {"change": name, "analysis": told.get("analysis", "")}
            for column, kind in (("efficacy", "efficacy"), ("generality", "generality")):
                row |= self._reached(column, own, kind, level)
            row |= _share("specificity", own["hit"], own["kind"] == "specificity", level)
            row |= _share(
                "unmoved", (own["colour"] <= AT_A_GLANCE).astype(float), own["kind"] == "specificity", level
            )
            row |= _mean("quality", own["fit"], own["kind"] == "efficacy", level)
            row |= {k: told.get(k, "" if k == "where" else 0) for k in ("where", "size", "rows")}
            rows.append(row)
        return pd.DataFrame(rows)

    def to_parquet(self, path: str | Path) -> Path:
        """Write ``to_frame()`` as a Parquet file, whole or not at all; return the path.

        Raises:
            RuntimeError: without pyarrow; the message says what to install.
            OSError: if it cannot be written.
        """
        buffer = io.BytesIO()
        try:
            self.to_frame().to_parquet(buffer, index=False)
        except ImportError as error:
            raise StateError(
                "Parquet files need pyarrow, which is not there: pip install 'denoscope[tables]'"
            ) from error
        write_bytes(Path(path), buffer.getvalue())
        return Path(path)

    def _reached(self, column: str, own: xr.Dataset, kind: str, level: float) -> dict[str, float]:
        found = _share(column, own["hit"], own["kind"] == kind, level)
        if self.data.attrs["goal"] != "balance":
            return found
        low, high = (found[f"{column}_{side}"] for side in ("low", "high"))
        ends = [1 - abs(2 * v - 1) for v in (low, high)]
        most = 1.0 if low <= 0.5 <= high else max(ends)
        even = 1 - abs(2 * found[column] - 1)
        return {column: even, f"{column}_low": min(ends), f"{column}_high": most}

    @property
    def scores(self) -> dict[str, float]:
        """Efficacy times specificity of each change; NaN without a judge."""
        frame = self.to_frame().set_index("change")
        specificity = frame["specificity"].fillna(1.0)
        return {n: float(frame["efficacy"][n] * specificity[n]) for n in self.names}

    @property
    def best(self) -> str | None:
        """The change with the largest efficacy times specificity; None where nobody judged, or none helps."""
        if not self.judged or not self.names:
            return None
        scores = self.scores
        best = max(scores, key=lambda n: scores[n])  # of equals the first
        return best if scores[best] > 0 else None

    @property
    def why(self) -> str:
        """Why the best is that one, and how sure that is."""
        if not self.judged:
            return "No judge says what pictures show, so nobody can say which change is best."
        best = self.best
        if best is None:
            return f"Under no change {self.goal_said} in any of these pictures, all else kept."
        frame = self.to_frame().set_index("change")
        row, plain = frame.loc[best], frame.loc[NOTHING]
        text = f"“{best}” has the largest efficacy times specificity: {row['efficacy']:.0%} reached"
        text += f" ({plain['efficacy']:.0%} with nothing done)"
        text += "" if np.isnan(row["specificity"]) else f", {row['specificity']:.0%} of other things kept"
        alike = [n for n in self.names if n != best and frame.loc[n, "efficacy_high"] >= row["efficacy_low"]]
        if alike:
            text += f". Its interval overlaps those of {len(alike)} of {len(self.names) - 1} others"
        if row["efficacy_low"] <= plain["efficacy_high"]:
            text += (
                ", and that of doing nothing" if alike else ". Its interval overlaps that of doing nothing"
            )
        return f"{text}. It was chosen on these pictures, so its own numbers flatter it a little."


def _share(name: str, values: xr.DataArray, some: xr.DataArray, level: float) -> dict[str, float]:
    """A proportion with Wilson's interval over prompts and seeds."""
    return _bounds(name, values[some.values], proportion, level)


def _mean(name: str, values: xr.DataArray, some: xr.DataArray, level: float) -> dict[str, float]:
    return _bounds(name, values[some.values], interval, level)


def _bounds(name: str, values: xr.DataArray, kind_of: Any, level: float) -> dict[str, float]:
    if values.size == 0 or bool(values.isnull().any()):
        return {name: np.nan, f"{name}_low": np.nan, f"{name}_high": np.nan}
    found = kind_of(values, OVER, level)
    return {f"{name}{'' if k == 'mean' else f'_{k}'}": float(found[k]) for k in ("mean", "low", "high")}
