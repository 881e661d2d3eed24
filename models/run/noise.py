"""Starting noise, drawn so that a row depends on its own generator alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import index

import torch
from torch import Tensor

from ..errors import UsageError, WrongTypeError


def generators(seeds: Iterable[int]) -> list[torch.Generator]:
    """Return a source of noise for each seed; whole numbers of any kind, numpy's too.

    Raises:
        TypeError: for what is no whole number.
        ValueError: for a number that is none of 64 bits.
    """
    return [_generator(seed) for seed in seeds]


def _generator(seed: int) -> torch.Generator:
    try:
        return torch.Generator().manual_seed(index(seed))
    except TypeError:
        raise WrongTypeError(f"the seed {seed!r} is no whole number; give one like 0") from None
    except (RuntimeError, ValueError, OverflowError):
        raise UsageError(f"the seed {seed!r} is beyond 64 bits; give a smaller one") from None


def gaussian(generators: Sequence[torch.Generator], shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Return noise [row, ...] of unit variance: one row of ``shape`` from each generator."""
    if not generators:
        raise UsageError("seeds is empty; give one for each sample: [0]")
    return torch.cat([torch.randn(1, *shape, generator=g, dtype=dtype) for g in generators])
