"""Activations as arrays on disk, under names and with axes that every reader of zarr and NetCDF knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import zarr
from torch import Tensor

from ..models.site import Site
from ..models.store.sealed import Sealed

DIMENSIONS = "_ARRAY_DIMENSIONS"
"""Where version 2 of zarr's format keeps the names of axes."""


def variable(site: Site | str) -> str:
    """Return the name of a site's array: NetCDF and zarr take slashes for groups.

    >>> variable("unet/mid.attn.0.0/cross_attn.out")
    'unet__mid.attn.0.0__cross_attn.out'
    """
    return str(site).replace("/", "__")


def dimensions(
    shapes: Mapping[Site, Sequence[int]], axes: Mapping[Site, Sequence[str]], n_samples: int
) -> dict[Site, tuple[str, ...]]:
    """Return the names of the axes of each site's array, shared by all that have the size in common.

    Where an axis (token, channel, head, ...) has several sizes, its names carry them: ``token_64``.

    Args:
        shapes: of the arrays, [step, sample, ...]; [sample, ...] in text encoders.
        axes: of one sample, where they are known.
        n_samples: how many samples were kept.
    """
    named: dict[Site, list[tuple[str, int]]] = {}
    for site, shape in shapes.items():
        lead = ["sample"] if site.component.startswith("text_encoder") else ["step", "sample"]
        rest = list(axes.get(site, ()))
        if len(lead) + len(rest) != len(shape):  # reduced, or not known
            rest = [f"axis{i}" for i in range(1, len(shape) - len(lead) + 1)]
        named[site] = list(zip([*lead, *rest], map(int, shape), strict=True))
    sizes: dict[str, set[int]] = {"sample": {n_samples}}
    for name, size in (pair for pairs in named.values() for pair in pairs):
        sizes.setdefault(name, set()).add(size)
    return {
        site: tuple(_named(name, size, sizes[name], n_samples) for name, size in pairs)
        for site, pairs in named.items()
    }


def _named(name: str, size: int, sizes: set[int], n_samples: int) -> str:
    plain = size == n_samples if name == "sample" else len(sizes) == 1
    return name if plain else f"{name}_{size}"


@dataclass(frozen=True, eq=False)
class StoredArray:
    """One array of a folder, compared with what was written whenever it is read.

    Args:
        home: the folder.
        name: of the array, as a path in the folder.
        shape: as it was written.
        dtype: number format of what was kept; numpy has no bfloat16, so that the file may have a wider one.
    """

    home: Sealed
    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        """Bytes in memory, once it is read."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize

    def read(self) -> Tensor:
        """Return the array.

        Raises:
            DamagedFolderError: if it is not what was written.
        """
        self.home.check([self.name.partition("/")[0]])
        array: Any = zarr.open_array(str(self.home.folder / self.name), mode="r")
        return torch.from_numpy(array[...]).to(self.dtype)


def as_array(x: Tensor) -> Any:
    """Return a tensor for numpy, which has no bfloat16."""
    return (x.float() if x.dtype == torch.bfloat16 else x).detach().cpu().numpy()
