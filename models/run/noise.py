"""Starting noise, drawn so that a row depends on its own generator alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def gaussian(generators: Sequence[torch.Generator], shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Return noise [row, ...] of unit variance: one row of ``shape`` from each generator."""
    return torch.cat([torch.randn(1, *shape, generator=g, dtype=dtype) for g in generators])
