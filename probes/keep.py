"""Where a trace keeps what it sees: in memory, or streamed to a zarr store on disk."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import zarr
from torch import Tensor

from ..models.site import Site

log = logging.getLogger("denoscope")
LOUD = 1_000_000_000  # bytes from which a run says loudly how much it keeps


class Keeper:
    """Keeps activations in memory, [step, sample, ...] for each site.

    Args:
        n_steps: how many steps will be kept.
        dtype: number format to keep; None keeps what comes.
    """

    def __init__(self, n_steps: int, dtype: torch.dtype | None) -> None:
        self.n_steps, self.dtype = n_steps, dtype
        self.kept: dict[Site, list[Tensor]] = {}
        self.stepped: set[Site] = set()
        self.announced = False

    def __enter__(self) -> Keeper:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def add(self, site: Site, stepped: bool, x: Tensor) -> None:
        """Keep a copy of one activation [sample, ...]; ``stepped``: it comes again at every step."""
        x = x.detach().to(self.dtype or x.dtype, copy=True)
        if stepped:
            self.stepped.add(site)
        self._put(site, x)

    def _put(self, site: Site, x: Tensor) -> None:
        self.kept.setdefault(site, []).append(x)

    def bytes(self) -> int:
        """Return how many bytes the whole run will keep, judged by its first step."""
        each = {s: x[0].numel() * x[0].element_size() for s, x in self.kept.items()}
        return sum(b * (self.n_steps if s in self.stepped else 1) for s, b in each.items())

    def announce(self) -> None:
        """Say once, after the first step, how much the run will keep."""
        if self.announced or not self.kept:
            return
        self.announced = True
        size = self.bytes()
        level = logging.WARNING if size >= LOUD else logging.INFO
        log.log(
            level,
            "this trace keeps %.1f MB at %d sites (reduce=, dtype=, store= keep less)",
            size / 1e6,
            len(self.kept),
        )

    def result(self) -> Mapping[Site, Any]:
        """Return the activations, stacked over steps."""
        return {s: torch.stack(x) if s in self.stepped else x[0] for s, x in self.kept.items()}


class StoreKeeper(Keeper):
    """Streams activations to a zarr store; the folder appears under its name only when the run is whole."""

    def __init__(self, n_steps: int, dtype: torch.dtype | None, path: Path) -> None:
        super().__init__(n_steps, dtype)
        if path.exists():
            raise FileExistsError(f"the store {path} exists; name a new folder, or delete it")
        self.path, self.part = path, path.with_name(path.name + ".part")
        self.arrays: dict[Site, Any] = {}
        self.filled: dict[Site, int] = {}

    def __enter__(self) -> StoreKeeper:
        shutil.rmtree(self.part, ignore_errors=True)
        self.group = zarr.open_group(str(self.part), mode="w")
        return self

    def __exit__(self, kind: object = None, *error: object) -> None:
        if kind is None:
            self.part.rename(self.path)
            self.group = zarr.open_group(str(self.path), mode="r")
        else:
            shutil.rmtree(self.part, ignore_errors=True)

    def _put(self, site: Site, x: Tensor) -> None:
        if x.dtype == torch.bfloat16:
            x = x.float()  # numpy has no bfloat16
        if site not in self.arrays:
            self.kept[site] = [x[:0]]
            steps = (self.n_steps,) if site in self.stepped else ()
            self.arrays[site] = self.group.create_array(
                str(site),
                shape=(*steps, *x.shape),
                chunks=(*(1 for _ in steps), *x.shape),
                dtype=str(x.numpy().dtype),
            )
            self.filled[site] = 0
        array, i = self.arrays[site], self.filled[site]
        if site in self.stepped:
            array[i] = x.cpu().numpy()
        else:
            array[:] = x.cpu().numpy()
        self.filled[site] += 1

    def bytes(self) -> int:
        """Return how many bytes the store will hold."""
        return sum(a.nbytes for a in self.arrays.values())

    def result(self) -> Mapping[Site, Any]:
        """Return the arrays on disk, opened for reading."""
        return {s: self.group[str(s)] for s in self.arrays}
