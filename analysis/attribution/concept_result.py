"""What concept maps are as a value: maps, the pictures that they are of, and how they show themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pandas as pd
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from ...models.arguments import checked
from ...models.drawn import Figure, figure
from ...models.errors import UsageError
from ...models.html import frame_table, panel, pictures
from ..stored import Stored
from .overlay import overlays
from .word_result import MOST_WORDS, peaks

VALUES = {"softmax": "share of concepts", "logit": "score", "attention": "attention"}
"""What the values of maps are, by the score."""


@dataclass(frozen=True, eq=False)
class ConceptMaps(Stored):
    """Where concepts are in pictures, as a model sees them.

    Args:
        data: ``maps`` (sample, concept, y, x), with leading ``step``, ``layer`` and ``head`` where one map of
            each was asked for: shares that add up to 1 over the concepts, scores, or shares of attention
            (``data.attrs["score"]``); ``images`` (sample, channel, height, width) in 0..1.
    """

    needed: ClassVar[frozenset[str]] = frozenset({"maps", "images", "concept"})

    def __repr__(self) -> str:
        names = ", ".join(str(c) for c in self.maps["concept"].values[:8])
        return f"ConceptMaps({names}; {dict(self.maps.sizes)}; {self.data.attrs.get('model', '')})"

    def _repr_html_(self) -> str:
        first = self._words().isel(sample=0)[:MOST_WORDS]
        names = [f"{w}: up to {float(m.max()):.2g}" for w, m in zip(first["word"].values, first, strict=True)]
        frame = self.to_frame()
        return panel(
            repr(self),
            pictures(overlays(self.images[0], first), names, MOST_WORDS),
            frame_table(frame),
        )

    @property
    def maps(self) -> xr.DataArray:
        """The maps."""
        return self.data["maps"]

    @property
    def images(self) -> Float[Tensor, "sample 3 height width"]:
        """The pictures in 0..1: made by the run, which equal those of a plain one, or given."""
        return torch.from_numpy(self.data["images"].values)

    def to_frame(self) -> pd.DataFrame:
        """Return a table: how much of each concept there is in each sample, and where most.

        Columns: sample, concept, mean, peak (in units of the score), y and x of the peak (cells of the map).
        """
        return peaks(self._words()).rename(columns={"word": "concept"})

    @checked
    def plot(self, sample: int = 0, *, shared: bool = True) -> Figure:
        """Return the maps of one sample over its picture, ``analysis.plots.word_heat``.

        Args:
            sample: which one.
            shared: colour all concepts on one scale.

        Raises:
            ValueError: for a sample that is not there.
        """
        if not 0 <= sample < self.maps.sizes["sample"]:
            raise UsageError(f"sample is {sample}; there are 0 to {self.maps.sizes['sample'] - 1}")
        label = VALUES.get(self.data.attrs.get("score", ""), "score")
        maps = self._words().isel(sample=sample)
        return figure("word_heat", self, maps, sample=sample, shared=shared, label=label)

    def _words(self) -> xr.DataArray:
        """The maps, averaged over steps, layers and heads where there is one of each, as of words."""
        found = self.maps.mean([d for d in ("step", "layer", "head") if d in self.maps.dims])
        return found.rename(concept="word")
