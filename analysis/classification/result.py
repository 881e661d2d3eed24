"""What was chosen for each picture, by how much, and what it cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
import xarray as xr

from ...models.arguments import check_fields, checked
from ...models.drawn import Figure, figure
from ...models.errors import UsageError
from ...models.html import frame_table, panel
from ..intervals import proportion
from ..stored import Stored
from .rows import label_positions

NEEDED = {
    "scores",
    "behind",
    "stderr",
    "draws",
    "chosen",
    "second",
    "tied",
    "rows",
    "full_rows",
    "level_weights",
}


@dataclass(frozen=True, eq=False)
class Classification(Stored):
    """Which of some prompts each picture shows, by the errors of a denoiser.

    Args:
        data: ``scores`` [image, prompt], half the weighted squared errors, of which the lowest is chosen;
            ``behind``, how much more that is than the chosen one's, and its ``stderr`` (shared noise
            cancels), of the ``draws`` that both had. ``chosen`` [image], "" where it is a tie, and
            ``second``, the nearest rival; ``tied`` says where the two are the same but for rounding. Weights
            of levels, provenance, ``rows`` spent and ``full_rows`` without pruning stand beside it.
    """

    needed: ClassVar[frozenset[str]] = frozenset(NEEDED)

    def __post_init__(self) -> None:
        check_fields(self)
        if missing := NEEDED - set(map(str, self.data.variables)) - set(self.data.attrs):
            raise UsageError(f"data lack {sorted(missing)}; give what classify returns, or load saved data")

    def __repr__(self) -> str:
        sizes, spared = self.data.sizes, 1 - self.rows / self.full_rows
        tied = f", {self.ties} tied" if self.ties else ""
        pruned = f", {spared:.0%} spared" if self.rows < self.full_rows else ""
        return (
            f"Classification({sizes['image']} images{tied}, {sizes['prompt']} prompts, weights "
            f"{self.data.attrs['level_weights']}; {self.rows} rows{pruned})"
        )

    def _repr_html_(self) -> str:
        frame = self.to_frame()
        return panel(repr(self), frame_table(frame))

    @property
    def prompts(self) -> list[str]:
        """What was chosen from."""
        return [str(p) for p in self.data["prompt"].values]

    @property
    def scores(self) -> xr.DataArray:
        """Half the weighted squared errors [image, prompt]; the lowest is chosen."""
        return self.data["scores"]

    @property
    def chosen(self) -> list[str]:
        """The prompt of each image; "" where there is a tie, which is no answer."""
        return [str(p) for p in self.data["chosen"].values]

    @property
    def margin(self) -> xr.DataArray:
        """How far the nearest rival is behind [image]; in nats, if the weights are."""
        return self._rival("behind")

    @property
    def stderr(self) -> xr.DataArray:
        """Standard errors of the margin, taken as that of two prompts named beforehand [image]."""
        return self._rival("stderr")

    @property
    def ties(self) -> int:
        """So many images got no answer."""
        return int(self.data["tied"].sum())

    @property
    def rows(self) -> int:
        """Denoiser rows that were computed, or taken from the store."""
        return int(self.data.attrs["rows"])

    @property
    def full_rows(self) -> int:
        """Denoiser rows that all draws of all prompts take."""
        return int(self.data.attrs["full_rows"])

    @checked
    def right(self, labels: Sequence[str]) -> xr.DataArray:
        """Return 1 for each image whose label was chosen, else 0; a tie is an error.

        Args:
            labels: the prompt that is right, for each image.

        Raises:
            ValueError: for another number of labels than of images.
            LookupError: for a label that is none of the prompts.
        """
        label_positions(labels, self.prompts, self.data.sizes["image"])
        found = [float(c == label) for c, label in zip(self.chosen, labels, strict=True)]
        return xr.DataArray(found, {"image": self.data["image"].values}, ("image",), "right")

    @checked
    def accuracy(self, labels: Sequence[str], level: float = 0.95) -> pd.DataFrame:
        """Return the share of images whose label was chosen, with Wilson's interval.

        Args:
            labels: as in ``right``.
            level: how often such intervals hold the true share.

        Returns:
            One row: accuracy, low, high, images, ties (which count as errors), chance.
        """
        share = proportion(self.right(labels), ["image"], level)
        row = [float(share[k]) for k in ("mean", "low", "high")]
        counts = (self.data.sizes["image"], self.ties, 1 / len(self.prompts))
        columns = ["accuracy", "low", "high", "images", "ties", "chance"]
        return pd.DataFrame([(*row, *counts)], columns=columns)

    @checked
    def to_frame(self) -> pd.DataFrame:
        """Return a table of images: chosen, second, margin, stderr, and the rows that it took."""
        rows = self.data["draws"].sum("prompt") * 2 * self.data.sizes["level"]
        columns = {"chosen": self.chosen, "second": [str(p) for p in self.data["second"].values]}
        numbers = {"margin": self.margin.values, "stderr": self.stderr.values, "rows": rows.values}
        return pd.DataFrame({"image": self.data["image"].values, **columns, **numbers})

    @checked
    def plot(self) -> Figure:
        """Return how far each prompt is behind the chosen one, ``analysis.plots.effect_map``."""
        mean, half = self.data["behind"], 1.96 * self.data["stderr"]
        shown = xr.Dataset({"mean": mean, "low": mean - half, "high": mean + half})
        return figure("effect_map", shown, "behind the chosen", float(abs(mean).max()) or 1.0)

    def _rival(self, name: str) -> xr.DataArray:
        at = xr.DataArray([self.prompts.index(str(p)) for p in self.data["second"].values], dims="image")
        return self.data[name].isel(prompt=at).drop_vars("prompt").rename(np.array(name).item())
