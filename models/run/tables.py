"""Small tables of numbers where a network computes: sent there once, for a GPU waits at each copy."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor


@lru_cache(maxsize=512)
def table(values: tuple[Any, ...], device: torch.device, dtype: torch.dtype = torch.int64) -> Tensor:
    """Return numbers, or rows of them, as a tensor on a device; it is shared, so nobody writes to it."""
    with torch.inference_mode(False):  # what is made in that mode could not be used outside it
        return torch.tensor(values, dtype=dtype, device="cpu").to(device)


def indices(rows: slice | list[int], device: torch.device) -> slice | Tensor:
    """Return what takes some rows out of a tensor on a device, ``x[indices(rows, x.device)]``."""
    return rows if isinstance(rows, slice) else table(tuple(rows), device)
