"""A small graph of features that carry a word, with what interventions say of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray
from scipy.stats import spearmanr

from ...models.arguments import checked
from ...models.drawn import Figure, figure
from ...models.html import frame_table, panel
from ..stored import Stored


@dataclass(frozen=True, eq=False)
class Circuit(Stored):
    """Which features of a source site make which features of a target site, for a word of a prompt.

    All numbers are shares of what the word changes in the output of one step; the whole is 1.

    Args:
        data: ``predicted`` and ``measured`` [source, target], an edge in the held network, and what the
            target loses in the real one without the source; ``kept``, 1 for edges that pruning left;
            ``other_predicted``, ``other_measured`` [other, target], the same of random sources;
            ``carried`` [target], what a target feature carries; ``from_all``, ``from_rest`` [target], of
            which come from all source features, and from what their dictionary leaves unexplained;
            ``alone`` [source], what a source feature carries by all routes; ``necessary``, ``sufficient``
            [circuit], the found graph first, then random ones. Attribute ``through_targets``: what all
            features of the target site carry; ``gap``: how far edges are from adding up, rounding alone.
    """

    needed: ClassVar[frozenset[str]] = frozenset(
        {
            "predicted",
            "measured",
            "kept",
            "carried",
            "necessary",
            "sufficient",
            "through_targets",
            "gap",
            "word",
        }
    )

    def __repr__(self) -> str:
        about, told = self.data.attrs, self.faithfulness()
        kept = int(self.data["kept"].sum())
        said = ", ".join(f"{i} {r.circuit:.2f} (random {r.random:.2f})" for i, r in told.iterrows())
        sizes = [f"{self.data.sizes[end]} features of {about[f'{end}_site']}" for end in ("source", "target")]
        where = f"{about['word']!r} in {about['prompt']!r}"
        return f"Circuit({where}: {', '.join(sizes)}, {kept} edges; {said})"

    def _repr_html_(self) -> str:
        frame = self.to_frame()
        return panel(repr(self), frame_table(frame.head(20)))

    def plot(self) -> Figure:
        """Return a map of the edges that pruning left, source by target, as interventions measured them.

        ``analysis.plots.effect_map``; full colour is the strongest.
        """
        mean = self.data["measured"].where(self.data["kept"] > 0).transpose("source", "target")
        none = xr.full_like(mean, np.nan)
        edges = xr.Dataset({"mean": mean, "low": none, "high": none})
        return figure("effect_map", edges, "share of the word's effect", float(abs(mean).max()) or 1.0)

    @checked
    def to_frame(self) -> pd.DataFrame:
        """Return the edges that pruning left, strongest first: source, target, predicted, measured."""
        whole = self.data[["predicted", "measured", "kept"]].to_dataframe().reset_index()
        frame = whole[whole["kept"] > 0].drop(columns="kept")
        return frame.reindex(frame["predicted"].abs().sort_values(ascending=False).index).reset_index(
            drop=True
        )

    @checked
    def agreement(self) -> pd.DataFrame:
        """Return how well edges predict interventions, for the graph's sources and for random ones.

        Columns: edges, pearson, spearman, same_sign, and slope: what is measured for each unit predicted (1
        is as predicted; least squares through 0). NaN for fewer than three edges.
        """
        rows = {"graph": ("predicted", "measured"), "random": ("other_predicted", "other_measured")}
        frame = {
            name: _agreement(*(self.data[k].values.ravel() for k in pair)) for name, pair in rows.items()
        }
        return pd.DataFrame(frame.values(), index=list(frame))

    @checked
    def faithfulness(self) -> pd.DataFrame:
        """Return what the graph carries beside random ones: rows necessary and sufficient.

        Columns: circuit, random (their mean), and low, high: the smallest and the largest of the random ones.
        """
        rows = {}
        for name in ("necessary", "sufficient"):
            first, *others = self.data[name].values.tolist()
            rows[name] = {
                "circuit": first,
                "random": float(np.mean(others)),
                "low": min(others),
                "high": max(others),
            }
        return pd.DataFrame(rows.values(), index=list(rows))


def _agreement(said: NDArray[np.float64], seen: NDArray[np.float64]) -> dict[str, float]:
    varied = len(said) > 2 and np.ptp(said) > 0 and np.ptp(seen) > 0
    nan = float("nan")
    return {
        "edges": len(said),
        "pearson": float(np.corrcoef(said, seen)[0, 1]) if varied else nan,
        "spearman": float(spearmanr(said, seen).statistic) if varied else nan,
        "same_sign": float((np.sign(said) == np.sign(seen)).mean()) if len(said) else nan,
        "slope": float((said * seen).sum() / (said**2).sum()) if varied else nan,
    }
