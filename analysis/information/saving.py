"""What the results of this folder share: how they are kept, and how a bank becomes labelled arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import xarray as xr

from ...models.errors import UsageError
from ..stored import Stored


@dataclass(frozen=True, eq=False)
class Nats(Stored):
    """A result in nats.

    Args:
        data: ``nats`` and ``stderr`` over ``image`` and others, ``map`` and ``v_map`` over y and x too.
    """

    needed: ClassVar[frozenset[str]] = frozenset({"nats", "stderr", "map", "v_map"})

    @property
    def nats(self) -> xr.DataArray:
        """Values in nats, over the whole picture."""
        return self.data["nats"]

    @property
    def stderr(self) -> xr.DataArray:
        """Standard errors of ``nats``."""
        return self.data["stderr"]

    @property
    def map(self) -> xr.DataArray:
        """Nats in each cell of the latents."""
        return self.data["map"]

    @property
    def v_map(self) -> xr.DataArray:
        """The same with noisy levels counted more, ``1 + 1/SNR`` times: no nats, but where it is."""
        return self.data["v_map"]

    @property
    def _reached(self) -> str:
        """What to tell where a standard error was asked for and not reached."""
        missed = int((~self.data["reached"]).sum()) if "reached" in self.data.coords else 0
        return f"; the standard error was not reached on {missed} images" if missed else ""

    def _image(self, image: int) -> xr.Dataset:
        """One picture's part.

        Raises:
            ValueError: for a picture that is not there.
        """
        if not 0 <= image < self.data.sizes["image"]:
            raise UsageError(f"image is {image}; there are 0 to {self.data.sizes['image'] - 1}")
        return self.data.isel(image=image)
