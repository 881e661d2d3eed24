"""What word maps are as a value: maps, the run that they are of, and how they show themselves."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from ...models.arguments import check_fields, checked
from ...models.drawn import Figure, figure
from ...models.html import frame_table, panel, pictures
from ...probes.trace import Trace
from .overlay import overlays

MOST_WORDS = 8
"""So many words show themselves in a notebook."""


def peaks(maps: xr.DataArray) -> pd.DataFrame:
    """Return a table of maps (sample, word, y, x): their mean, and where they are highest."""
    rows = []
    for i, sample in enumerate(maps):
        for one in sample.dropna("word", how="all"):
            y, x = divmod(int(one.values.argmax()), one.sizes["x"])
            rows.append((i, str(one["word"].item()), float(one.mean()), float(one.max()), y, x))
    return pd.DataFrame(rows, columns=["sample", "word", "mean", "peak", "y", "x"])


@dataclass(frozen=True, eq=False)
class WordMaps:
    """Where the words of prompts were read while their pictures were made.

    Args:
        maps: dims (sample, word, y, x), and leading ``step``, ``layer`` and ``head`` where one map of each
            was asked for. Values are attention probabilities (mean, each) or their sum over steps. NaN where
            a sample's prompt does not have the word, and for heads that a layer does not have.
        run: the run itself, for its latents, images and provenance.
    """

    maps: xr.DataArray
    run: Trace

    def __post_init__(self) -> None:
        check_fields(self)

    def __repr__(self) -> str:
        words = ", ".join(str(w) for w in self.maps["word"].values[:8])
        return f"WordMaps({words}; {dict(self.maps.sizes)}; {self.run!r})"

    def _repr_html_(self) -> str:
        first = self._averaged().isel(sample=0).dropna("word", how="all")[:MOST_WORDS]
        names = [f"{w}: up to {float(m.max()):.2g}" for w, m in zip(first["word"].values, first, strict=True)]
        frame = self.to_frame()
        return panel(
            repr(self),
            pictures(overlays(self.images[0], first), names, MOST_WORDS),
            frame_table(frame),
        )

    def to_frame(self) -> pd.DataFrame:
        """Return a table: how much each word is read in each sample, on average and at most, and where most.

        Columns: sample, word, mean, peak (attention), y and x of the peak (cells of the map).
        """
        return peaks(self._averaged())

    @checked
    def plot(self, sample: int = 0, *, shared: bool = True) -> Figure:
        """Return the maps of one sample over its picture, ``analysis.plots.word_heat``.

        Args:
            sample: which one.
            shared: colour all words on one scale.

        Raises:
            ValueError: for a sample that is not there, and for maps of every step, layer or head.
        """
        return figure("word_heat", self, sample=sample, shared=shared)

    def _averaged(self) -> xr.DataArray:
        """The maps, averaged over steps, layers and heads where there is one of each."""
        return self.maps.mean([d for d in ("step", "layer", "head") if d in self.maps.dims])

    @property
    def images(self) -> Float[Tensor, "sample 3 height width"]:
        """The pictures in 0..1, equal to those of a plain run."""
        return self.run.images

    @property
    def latents(self) -> Float[Tensor, "sample ..."]:
        """The final latents."""
        return self.run.latents

    def to_xarray(self) -> xr.Dataset:
        """Return a labelled dataset with ``word_maps`` and ``latents``."""
        maps = self.maps.drop_vars(["prompt", "seed", "sigma"], errors="ignore")
        dataset: xr.Dataset = self.run.to_xarray().assign(word_maps=maps)
        return dataset
