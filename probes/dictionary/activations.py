"""A store of activations on disk: shuffled rows of one site or several, read batch by batch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...models.arguments import checked
from ...models.errors import NotFoundError, UsageError
from ...models.run.levels import Step
from ...models.site import Site
from ...models.store.sealed import MANIFEST, Sealed, unseal
from ...models.suggest import near
from ..stored import variable
from .channels import Kernel

KIND = "activation store"
FILLING = ".filling.json"
"""What is done so far, while a store is filled; gone when it is whole. Hidden files are not sealed."""
ROWS, STEPS = "rows.bin", "steps.bin"

_SITE = {"axes": [str], "grid": [int], "channels": int, "rows": int, "held": int}
SCHEMA = {
    "identity": {str: object},
    "kernel": str,
    "dtype": str,
    "steps": [(int, float, float | str)],
    "sites": {str: _SITE},
}


@dataclass(frozen=True, eq=False)
class ActivationStore:
    """Activations of a model, row by row in random order; rows of held-out samples stand last.

    Where sites have as many rows, row i is the same sample, step and position at each.

    Args:
        folder: where it lies.
        about: what it holds and where that came from; JSON.
    """

    folder: Path
    about: Mapping[str, Any]

    @staticmethod
    @checked
    def open(folder: str | Path) -> ActivationStore:
        """Open a store that is whole; all of it is compared with what was written.

        Raises:
            FileNotFoundError: if there is no such folder.
            ValueError: if it was cut off while it was filled, is damaged, or is no store.
        """
        sealed = _sealed(Path(folder))
        sealed.check()
        return ActivationStore(Path(folder), sealed.about)

    def __repr__(self) -> str:
        sites = ", ".join(f"{s} [{self.n_rows(s)}, {self.n_channels(s)}]" for s in self.sites)
        return f"ActivationStore({sites}; {self.nbytes / 1e6:.1f} MB)"

    @property
    def sites(self) -> tuple[Site, ...]:
        """What is in it."""
        return tuple(map(Site, self.about["sites"]))

    @property
    def kernel(self) -> Kernel:
        """What a row is: one position, or a whole map."""
        found: Kernel = self.about["kernel"]
        return found

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """The steps that were kept, of the run that it was filled from; none in text encoders."""
        return tuple(Step(i, t, float(sigma)) for i, t, sigma in self.about["steps"])

    @property
    def nbytes(self) -> int:
        """Bytes on disk."""
        size = np.dtype(self.about["dtype"]).itemsize
        return sum(s["rows"] * (s["channels"] * size + 2) for s in self.about["sites"].values())

    @checked
    def n_rows(self, site: Site | str, held: bool = False) -> int:
        """Return how many rows there are to train on, or are held out."""
        of = self._of(site)
        return int(of["held"] if held else of["rows"] - of["held"])

    @checked
    def n_channels(self, site: Site | str) -> int:
        """Return how wide a row is."""
        return int(self._of(site)["channels"])

    @checked
    def rows(self, site: Site | str, start: int, stop: int, held: bool = False) -> tuple[Tensor, Tensor]:
        """Return rows [row, channel] in float32, and the position of each one's step in ``steps`` [row].

        Args:
            site: which.
            start: first row.
            stop: where to stop.
            held: those that are held out, in place of those to train on.

        Raises:
            LookupError: for a site that is not in the store.
            ValueError: for rows that are not there.
        """
        n, before = self.n_rows(site, held), self.n_rows(site) if held else 0
        if not 0 <= start < stop <= n:
            raise UsageError(f"rows {start} to {stop} of {site} were asked for; there are {n}")
        values, steps = self._arrays[str(site)]
        part = slice(before + start, before + stop)
        return (
            torch.from_numpy(values[part].astype(np.float32)),
            torch.from_numpy(steps[part].astype(np.int64)),
        )

    def _of(self, site: Site | str) -> Mapping[str, Any]:
        sites = self.about["sites"]
        if str(site) not in sites:
            raise NotFoundError(
                f"the store {self.folder} does not hold {site} (a store of several sites is filled at once: "
                f"collect_activations(model, [site, ...])); {near(str(site), sites)}"
            )
        found: Mapping[str, Any] = sites[str(site)]
        return found

    @cached_property
    def _arrays(self) -> dict[str, tuple[np.memmap[Any, Any], np.memmap[Any, Any]]]:
        return {
            str(site): arrays(self.folder, site, self._of(site), self.about["dtype"]) for site in self.sites
        }


def arrays(
    folder: Path, site: Site, of: Mapping[str, Any], dtype: str, mode: Any = "r"
) -> tuple[np.memmap[Any, Any], np.memmap[Any, Any]]:
    """Return the arrays of a site on disk: values [row, channel], positions of steps [row]."""
    home, n = folder / variable(site), of["rows"]
    values = np.memmap(home / ROWS, dtype, mode, shape=(n, of["channels"]))
    return values, np.memmap(home / STEPS, np.uint16, mode, shape=(n,))


def cut_off(folder: Path) -> dict[str, Any] | None:
    """Return what is done so far of a store that was cut off; None where there is none."""
    try:
        found: dict[str, Any] = json.loads((folder / FILLING).read_bytes())
    except FileNotFoundError:
        return None
    return found


def _sealed(folder: Path) -> Sealed:
    begun = None if (folder / MANIFEST).exists() else cut_off(folder)
    if begun is not None:
        raise UsageError(
            f"the activation store {folder} was cut off: {begun['done']} of {begun['samples']} samples are "
            "there; the same call of collect_activations or train_dictionary goes on, or delete the folder"
        )
    return unseal(folder, KIND, SCHEMA)
