"""What results that are one dataset share: how they are kept, and read again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import xarray as xr

from ..models.arguments import check_fields, checked
from .scores import load_result, save_store


@dataclass(frozen=True, eq=False)
class Stored:
    """A result that is kept as a zarr store; each kind is a subclass.

    Args:
        data: the numbers, labelled.
    """

    data: xr.Dataset
    needed: ClassVar[frozenset[str]]
    """Which variables and attributes a store of it holds."""

    def __post_init__(self) -> None:
        check_fields(self)

    @checked
    def save(self, path: str | Path) -> None:
        """Write a zarr store, whole or not at all.

        Raises:
            FileExistsError: if the path exists.
        """
        save_store(self.data, path)

    @classmethod
    @checked
    def load(cls, path: str | Path) -> Self:
        """Read what ``save`` wrote.

        Raises:
            FileNotFoundError: if there is nothing at the path.
            ValueError: if it is no store of such a result, or damaged.
        """
        return cls(load_result(path, set(cls.needed), cls.__name__))
