"""What two words of a prompt tell of pictures: alike, each alone, and only together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pandas as pd
import xarray as xr

from ...models.arguments import checked
from ...models.drawn import Figure, figure
from ...models.errors import NotFoundError
from ...models.html import frame_table, panel
from ...models.suggest import near
from .redundancy import PARTS
from .saving import Nats


@dataclass(frozen=True, eq=False)
class Decomposition(Nats):
    """A partial information decomposition of pairs of words.

    Args:
        data: ``nats`` and ``stderr`` [image, pair, part], ``map`` and ``v_map`` [image, pair, part, y, x].
            Parts are redundancy, unique 1, unique 2, synergy, total (of both words), information 1 and 2. The
            first four add up to the total, in all and in each cell; cells of the last three add up to the
            picture's, those of the others need not, for each cell follows its own word.
    """

    needed: ClassVar[frozenset[str]] = Nats.needed | {"pair", "part"}

    def __repr__(self) -> str:
        about = self.data.attrs
        said = f"{about['redundancy']}, {about['estimator']}" + (", given the rest" * about["given_rest"])
        pairs = ", ".join(map(str, self.data["pair"].values[:4]))
        more = f" and {self.data.sizes['pair'] - 4} more" if self.data.sizes["pair"] > 4 else ""
        return f"Decomposition({said}: {pairs}{more}; {self.data.sizes['image']} images{self._reached})"

    def _repr_html_(self) -> str:
        frame = self.to_frame()
        return panel(repr(self), frame_table(frame))

    @property
    def redundancy(self) -> xr.DataArray:
        """What both words tell, each by itself [image, pair]."""
        return self._part("redundancy")

    @property
    def unique(self) -> xr.DataArray:
        """What one word tells that the other does not [image, pair, word]; word is 1 or 2."""
        parts = [self._part(f"unique {k}") for k in (1, 2)]
        return xr.concat(parts, pd.Index([1, 2], name="word")).transpose("image", "pair", "word")

    @property
    def synergy(self) -> xr.DataArray:
        """What the two tell together alone [image, pair]."""
        return self._part("synergy")

    @property
    def total(self) -> xr.DataArray:
        """What the two tell in all [image, pair]."""
        return self._part("total")

    def to_frame(self) -> pd.DataFrame:
        """Return a table of images and pairs: each part, and the standard error of the synergy."""
        columns = {name: self._part(name) for name in PARTS}
        columns["synergy stderr"] = self.stderr.sel(part="synergy", drop=True)
        frame = xr.Dataset(columns).to_dataframe().reset_index()
        return frame[["image", "pair", *columns]]

    @checked
    def plot(self, pair: str | None = None, image: int = 0) -> Figure:
        """Return the parts of all pairs on one picture, or where those of one pair lie in it.

        ``analysis.plots.effect_map`` and ``analysis.plots.nats_maps``.

        Args:
            pair: as ``data["pair"]`` names it; None is all of them.
            image: which picture.

        Raises:
            LookupError: for a pair that is not there.
            ValueError: for a picture that is not there.
        """
        part = self._image(image)
        if pair is not None:
            known = [str(p) for p in self.data["pair"].values]
            if pair not in known:
                raise NotFoundError(f"there is no pair {pair!r}; {near(pair, known)}")
            one = part.sel(pair=pair)
            return figure("nats_maps", one["map"].values, list(PARTS), shared=True)
        mean, half = part["nats"], 1.96 * part["stderr"]
        shown = xr.Dataset({"mean": mean, "low": mean - half, "high": mean + half})
        return figure("effect_map", shown, "nats", float(abs(mean).max()) or 1.0)

    def _part(self, name: str) -> xr.DataArray:
        return self.nats.sel(part=name, drop=True).rename(name)
