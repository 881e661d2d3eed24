"""Which features another training finds again."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from ...models.arguments import checked
from ...models.drawn import Figure, figure
from ...models.errors import UsageError
from ...models.html import frame_table, panel
from .value import Dictionary

APART = 2**61 - 1
"""Seed of the random directions; that of a training would give its own start."""


@dataclass(frozen=True, eq=False)
class Stability:
    """For each feature of one dictionary, the most similar one of another.

    Args:
        cosines: the largest cosine of the decoder's row with any of the other, [feature].
        nearest: with which, [feature]; several may have the same.
        chance: the mean largest cosine with as many random directions.
    """

    cosines: Float[Tensor, " feature"]
    nearest: Int[Tensor, " feature"]
    chance: float

    @property
    def mean(self) -> float:
        """The mean largest cosine."""
        return float(self.cosines.mean())

    @checked
    def share(self, cosine: float = 0.9) -> float:
        """Return the share of features that are found again: whose cosine is above a number.

        Raises:
            ValueError: for a number that is no cosine.
        """
        if not -1 <= cosine <= 1:
            raise UsageError(f"cosine is {cosine}; it is a number from -1 to 1")
        return float((self.cosines > cosine).double().mean())

    def to_frame(self) -> pd.DataFrame:
        """Return a table: feature, nearest, cosine; the most stable first."""
        found = pd.DataFrame({"nearest": self.nearest.tolist(), "cosine": self.cosines.tolist()})
        return found.rename_axis("feature").reset_index().sort_values("cosine", ascending=False)

    def plot(self) -> Figure:
        """Return the cosines of all features, the largest first; the mean by chance is dotted.

        ``analysis.plots.interval_lines``.
        """
        own = pd.DataFrame({"mean": self.cosines.sort(descending=True).values.tolist()})
        own = own.assign(line="found again", rank=range(1, len(own) + 1))
        chance = pd.DataFrame({"line": ["by chance"], "mean": [self.chance], "rank": [float("nan")]})
        frame = pd.concat([own, chance]).assign(low=float("nan"), high=float("nan"))
        return figure("interval_lines", frame, "rank", "cosine")

    def _repr_html_(self) -> str:
        frame = self.to_frame()
        return panel(repr(self), frame_table(frame))

    def __repr__(self) -> str:
        return (
            f"Stability({len(self.cosines)} features: mean largest cosine {self.mean:.3f} (chance "
            f"{self.chance:.3f}); {self.share():.0%} above 0.9)"
        )


@checked
def stability(a: Dictionary, b: Dictionary) -> Stability:
    """Return which features of one dictionary another one has too, by the cosine of what they add.

    It is not symmetric where the dictionaries differ in width, or where one feature of b serves several of a.
    Features that point along the spread of the activations are similar by that alone, so that chance is a low
    bar: compare with a shuffled or untrained dictionary too.

    Args:
        a: whose features are asked about.
        b: trained otherwise: with another seed, on other samples.

    Raises:
        ValueError: if they are not over the same channels.
    """
    if a.channels != b.channels or a.decoder.shape[1] != b.decoder.shape[1]:
        raise UsageError(f"{a} and {b} are not over the same channels, so their features cannot be compared")
    own, other = normalize(a.decoder, dim=-1), normalize(b.decoder, dim=-1)
    random = normalize(torch.randn(other.shape, generator=torch.Generator().manual_seed(APART)), dim=-1)
    cosines, nearest = _largest(own, other)
    return Stability(cosines, nearest, float(_largest(own, random)[0].mean()))


def _largest(own: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """The largest cosine of each row, and with which; in chunks, as both may be large."""
    parts = [(chunk @ other.mT).max(dim=-1) for chunk in own.split(1024)]
    return torch.cat([p.values for p in parts]), torch.cat([p.indices for p in parts])
