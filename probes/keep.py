"""Where a trace keeps what it sees: in memory, or streamed to a zarr store on disk."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import torch
import zarr
from torch import Tensor

from ..models.errors import UsageError
from ..models.site import Site
from ..models.store.disk import new_folder
from ..models.store.sealed import Sealed
from .export import finish, load_trace
from .stored import StoredArray, as_array, variable

log = logging.getLogger("denoscope")
WARN_BYTES = 1_000_000_000  # bytes from which a run says loudly how much it keeps
PINNED_BYTES = 2 * 2**30  # so much of what a GPU sends may lie where it writes to by itself


class Keeper:
    """Keeps activations in main memory, [step, sample, ...] for each site, wherever the model computes.

    The buffer for all steps is made at the first one: stacking at the end would need twice the memory. What
    comes from a GPU goes to pinned memory, up to ``PINNED_BYTES``: the run goes on while it is copied.

    Args:
        n_steps: how many steps will be kept.
        dtype: number format to keep; None keeps what comes.
    """

    def __init__(self, n_steps: int, dtype: torch.dtype | None) -> None:
        self.n_steps, self.dtype = n_steps, dtype
        self.buffers: dict[Site, Any] = {}
        self.sending: set[torch.device] = set()  # GPUs that may still be copying
        self.announced = False

    def __enter__(self) -> Keeper:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def add(self, site: Site, position: int | None, x: Tensor) -> None:
        """Keep a copy of one activation [sample, ...]: that of the step at ``position`` of those kept.

        None is for sites that are seen once, in text encoders.
        """
        x = x.detach()
        check_holds(site, x, self.dtype)
        if site not in self.buffers:
            self.buffers[site] = self._buffer(site, () if position is None else (self.n_steps,), x)
        self._put(self.buffers[site], ... if position is None else position, x)

    def _buffer(self, site: Site, steps: tuple[int, ...], x: Tensor) -> Any:  # noqa: ARG002
        dtype = self.dtype or x.dtype
        more = prod(steps) * x.numel() * dtype.itemsize
        pinned = x.is_cuda and self.bytes() + more <= PINNED_BYTES
        return torch.empty((*steps, *x.shape), dtype=dtype, pin_memory=pinned)

    def _put(self, buffer: Any, at: Any, x: Tensor) -> None:
        if not (x.is_cuda and buffer.is_pinned()):
            buffer[at] = x
            return
        buffer[at].copy_(x, non_blocking=True)
        self.sending.add(x.device)

    def bytes(self) -> int:
        """Return how many bytes the whole run will keep."""
        return sum(buffer.nbytes for buffer in self.buffers.values())

    def announce(self) -> None:
        """Say once, after the first step, how much the run will keep."""
        if self.announced or not self.buffers:
            return
        self.announced = True
        size = self.bytes()
        level = logging.WARNING if size >= WARN_BYTES else logging.INFO
        log.log(
            level,
            "this trace keeps %.1f MB at %d sites (reduce=, dtype=, store= keep less)",
            size / 1e6,
            len(self.buffers),
        )

    def kept(self) -> Mapping[Site, Any]:
        """Return the activations, before the run is over; all of them are there."""
        while self.sending:
            torch.cuda.synchronize(self.sending.pop())
        return self.buffers

    def complete(self, trace: Any) -> None:
        """The run is over, and this is its trace."""

    def result(self) -> Mapping[Site, Any]:
        """Return the activations."""
        return self.buffers


def check_holds(site: Site, x: Tensor, dtype: torch.dtype | None) -> None:
    """Raise UsageError if finite values would be kept as infinite ones."""
    if dtype is None or not (x.is_floating_point() and dtype.is_floating_point):
        return
    most, largest = torch.finfo(dtype).max, torch.finfo(x.dtype).max
    if most < largest and (beyond := (x.abs() > most) & x.isfinite()).any():
        raise UsageError(
            f"{int(beyond.sum())} values at {site} are beyond the {most:g} that {dtype} holds; keep "
            "torch.bfloat16, or what comes (dtype=None)"
        )


class StoreKeeper(Keeper):
    """Streams activations to a zarr store; the folder appears under its name only when the run is whole."""

    def __init__(self, n_steps: int, dtype: torch.dtype | None, path: Path) -> None:
        super().__init__(n_steps, dtype)
        self.path, self.folder = path, new_folder(path)
        self.dtypes: dict[Site, torch.dtype] = {}

    def __enter__(self) -> StoreKeeper:
        self.part = self.folder.__enter__()
        self.group = zarr.open_group(str(self.part), mode="w", zarr_format=2)
        return self

    def __exit__(self, *error: Any) -> None:
        self.folder.__exit__(*error)

    def _buffer(self, site: Site, steps: tuple[int, ...], x: Tensor) -> Any:
        shape, chunks = (*steps, *x.shape), (*(1 for _ in steps), *x.shape)
        self.dtypes[site] = self.dtype or x.dtype
        name, dtype = variable(site), str(as_array(x[:0].to(self.dtypes[site])).dtype)
        return self.group.create_array(name, shape=shape, chunks=chunks, dtype=dtype, fill_value=None)

    def _put(self, buffer: Any, at: Any, x: Tensor) -> None:
        buffer[at] = as_array(x.to(self.dtype or x.dtype))

    def kept(self) -> Mapping[Site, Any]:
        """Return what is known of the activations; they can be read when the folder has its name."""
        home = Sealed(self.part, {}, {})
        return {s: StoredArray(home, variable(s), b.shape, self.dtypes[s]) for s, b in self.buffers.items()}

    def complete(self, trace: Any) -> None:
        """Write what is told of the trace, and the manifest last."""
        finish(trace, self.part)

    def result(self) -> Mapping[Site, Any]:
        """Return the arrays on disk, read when asked for."""
        acts: Mapping[Site, Any] = load_trace(self.path)["acts"]
        return acts


def keeper_of(n_steps: int, dtype: torch.dtype | None, store: str | Path | None) -> Keeper:
    """Return a keeper for so many steps: in memory, or in a new folder."""
    return Keeper(n_steps, dtype) if store is None else StoreKeeper(n_steps, dtype, Path(store))
