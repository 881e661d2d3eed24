"""How far pictures move without a word, and how well that was foretold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
import xarray as xr

from ...models.arguments import checked
from ...models.drawn import Figure, figure
from ...models.errors import NotFoundError
from ...models.html import frame_table, panel
from ...models.suggest import near
from ..intervals import interval
from ..stored import Stored
from .ranking import rank_correlation


@dataclass(frozen=True, eq=False)
class WordChanges(Stored):
    """Changes of pictures by words that were left out or swapped, and predictors of them.

    Args:
        data: ``change`` [distance, unit, seed] and ``predictors`` [predictor, unit, seed]; each unit a word
            of a prompt: ``prompt``, ``word``, and ``changed``, the text without it [unit].
    """

    needed: ClassVar[frozenset[str]] = frozenset({"change", "predictors", "prompt", "word", "changed"})

    def __repr__(self) -> str:
        sizes, prompts = self.data.sizes, len(dict.fromkeys(self.data["prompt"].values.tolist()))
        return (
            f"WordChanges({sizes['unit']} words of {prompts} prompts, {sizes['seed']} seeds; "
            f"{', '.join(map(str, self.data['predictor'].values))})"
        )

    def _repr_html_(self) -> str:
        frame = self.correlations()
        return panel(repr(self), frame_table(frame))

    @checked
    def to_frame(self) -> pd.DataFrame:
        """Return a table of words, means over seeds: prompt, word, changed, each distance, each predictor."""
        columns = {name: self.data[name].values for name in ("prompt", "word", "changed")}
        for dim, name in (("distance", "change"), ("predictor", "predictors")):
            mean = self.data[name].mean("seed")
            columns |= {str(k): mean.sel({dim: k}).values for k in self.data[dim].values}
        return pd.DataFrame(columns)

    @checked
    def correlations(self, *, less: str | None = None, level: float = 0.95) -> pd.DataFrame:
        """Return how well each predictor orders the words of a prompt by how far its picture moves.

        Spearman's rank correlation within each prompt and seed, the mean of all with an interval over prompts
        and seeds. Where all words of a prompt tie, that correlation is 0: nothing is foretold.

        Args:
            less: a predictor that is taken from each: ``less="position"`` is what is won over it.
            level: how often such intervals hold the true mean.

        Returns:
            A table: distance, predictor, mean, low, high, prompts (how many).

        Raises:
            LookupError: for a predictor that was not taken.
        """
        rho = self._within()
        if less is not None:
            known = [str(p) for p in rho["predictor"].values]
            if less not in known:
                raise NotFoundError(f"there is no predictor {less!r}; {near(less, known)}")
            base = rho.sel(predictor=less, drop=True)
            rho = rho.sel(predictor=[p for p in known if p != less]) - base
        most = 1 if less is None else 2
        found = interval(rho, ["prompt", "seed"], level).clip(-most, most)
        frame = found.to_dataframe().reset_index()
        return frame.assign(prompts=rho.sizes["prompt"])[
            ["distance", "predictor", "mean", "low", "high", "prompts"]
        ]

    def plot(self) -> Figure:
        """Return a figure of the rank correlations with their intervals, ``analysis.plots.effect_bars``."""
        found = interval(self._within(), ["prompt", "seed"]).clip(-1, 1)
        return figure("effect_bars", found.rename(predictor="measure", distance="when"))

    def _within(self) -> xr.DataArray:
        """Rank correlations [distance, predictor, prompt, seed]."""
        prompts = self.data["prompt"].values
        each, found = list(dict.fromkeys(prompts.tolist())), []
        for prompt in each:
            own = self.data.isel(unit=np.flatnonzero(prompts == prompt))
            change = own["change"].transpose("distance", "seed", "unit").values[:, None]
            told = own["predictors"].transpose("predictor", "seed", "unit").values[None]
            found.append(np.nan_to_num(rank_correlation(*np.broadcast_arrays(change, told))))
        named = {dim: self.data[dim].values for dim in ("distance", "predictor")}
        coords = {**named, "prompt": each, "seed": self.data["seed"].values}
        return xr.DataArray(np.stack(found, 2), coords, tuple(coords))
