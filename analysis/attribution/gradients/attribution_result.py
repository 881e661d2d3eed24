"""What attributions are as a value: shares of a number, by word, by place of the picture, or by site."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pandas as pd
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from ....models.arguments import checked
from ....models.drawn import Figure, figure
from ....models.errors import UsageError
from ....models.html import frame_table, panel
from ...scores import Scores
from ...stored import Stored


@dataclass(frozen=True, eq=False)
class Attribution(Stored):
    """What a number owes to each part of an input.

    Args:
        data: ``values``, in units of the number: (word, prompt, seed), NaN where a prompt lacks the word;
            (prompt, seed, y, x) of latents; or (site, step, prompt, seed). ``score`` (prompt, seed) is the
            number itself, ``reference`` what it is at the baseline; of sites, one for each. Of one site also
            ``channels`` (step, prompt, seed, channel) and ``places`` (step, prompt, seed, y, x), of latents
            ``images``, where there are such.
    """

    needed: ClassVar[frozenset[str]] = frozenset({"values", "score", "reference", "of", "to", "method"})

    def __repr__(self) -> str:
        said = f"{self.data.attrs['of']} to {self.data.attrs['to']} by {self.data.attrs['method']}"
        return f"Attribution({said}; {dict(self.values.sizes)}; score {float(self.data['score'].mean()):.3g})"

    def _repr_html_(self) -> str:
        frame = self.to_frame()
        return panel(repr(self), frame_table(frame))

    @property
    def values(self) -> xr.DataArray:
        """The attributions."""
        return self.data["values"]

    @property
    def images(self) -> Float[Tensor, "sample ..."]:
        """Of latents: the pictures, prompt by prompt and seed by seed."""
        if "images" not in self.data:
            raise UsageError("attributions to words and sites keep no pictures; those to='latents' do")
        found = torch.from_numpy(self.data["images"].values)
        return found.flatten(0, 1)

    @property
    def remainder(self) -> xr.DataArray:
        """What the attributions do not add up to: score - reference - their sum.

        0 for Shapley values, up to rounding, and for integrated gradients as points grow (completeness);
        else what lies beyond a first order, or beyond single words.

        Raises:
            ValueError: for plain gradients, which are lengths and add up to nothing.
        """
        if self.data.attrs["method"] == "gradient":
            raise UsageError("lengths of gradients add up to nothing; take another method for a remainder")
        over = [d for d in ("word", "y", "x", "step") if d in self.values.dims]
        return self.data["score"] - self.data["reference"] - self.values.sum(over)

    @property
    def scores(self) -> Scores:
        """The attributions as Scores, with intervals over prompts and seeds.

        Raises:
            ValueError: for those to latents, which are maps.
        """
        if "y" in self.values.dims:
            raise UsageError("attributions to latents are maps, no scores of sites; see values")
        values = self.values.assign_attrs(self.data.attrs)
        return Scores(values if "site" in values.dims else values.expand_dims(site=["text"]))

    @checked
    def to_frame(self, level: float = 0.95) -> pd.DataFrame:
        """Return a table, largest first: words or sites with intervals; of latents, each map's sum and peak.

        Args:
            level: how often such intervals hold the true mean over prompts and seeds.
        """
        if "y" not in self.values.dims:
            frame = self.scores.to_frame(level)
            return frame if "site" in self.values.dims else frame.drop(columns="site")
        rows = []
        for one in self.values.stack(run=("prompt", "seed")).transpose("run", "y", "x"):
            y, x = divmod(int(abs(one).values.argmax()), one.sizes["x"])
            prompt, seed = one["run"].item()
            rows.append((prompt, seed, float(one.sum()), float(abs(one).max()), y, x))
        return pd.DataFrame(rows, columns=["prompt", "seed", "sum", "peak", "y", "x"])

    @checked
    def plot(self) -> Figure:
        """Return a map of words or sites, ``analysis.plots.effect_map``; or maps over the first picture.

        Raises:
            ValueError: for scores over more than two dimensions.
        """
        if "y" not in self.values.dims:
            return self.scores.plot(self.data.attrs["of"])
        first = self.values.isel(prompt=0).rename(seed="word")
        return figure("word_heat", self, first, label=self.data.attrs["of"])
