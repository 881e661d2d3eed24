"""A weight plus its change, some rows at a time: whole weights in float64 are four times those in float16."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..models.errors import UsageError
from .lowrank import Delta, rows

BLOCK = 2**20
"""Numbers of a weight that are computed at once."""
MOST_LOST = 0.5
"""Of a change, by its norm: what rounding may take. Beyond it an edit is mostly noise, or nothing."""


def summed(before: Tensor, delta: Delta) -> Iterator[tuple[slice, Tensor, Tensor, Tensor]]:
    """Yield, block by block, which rows, their change, the exact sum, and the sum in the weight's format.

    Change and exact sum are in float64; it is rounded once.
    """
    before = before.detach() if before.ndim else before.detach()[None]
    step = max(1, BLOCK * len(before) // max(before.numel(), 1))
    for i in range(0, len(before), step):
        some = slice(i, i + step)
        change = rows(delta, some)
        exact = before[some].to("cpu", torch.float64) + change
        yield some, change, exact, exact.to(before.dtype)


def check_holds(name: str, change: Tensor, exact: Tensor, after: Tensor) -> tuple[float, float]:
    """Return the squares of the change wanted in a block, and of what rounding took of it.

    Raises:
        UsageError: if the weight's format cannot hold what was computed.
    """
    made = after.double()
    if not bool(made.isfinite().all()):
        raise UsageError(f"{name} cannot hold the edited values in {after.dtype}; scale the edit: 0.5 * edit")
    return float(change.square().sum()), float((made - exact).square().sum())


def check_not_lost(name: str, dtype: torch.dtype, wanted: float, lost: float) -> None:
    """Raise UsageError if rounding took most of a change, given the squares of both."""
    if lost > MOST_LOST**2 * wanted:
        raise UsageError(
            f"the edit is too small for {name} in {dtype}: rounding takes {(lost / wanted) ** 0.5:.0%} of "
            "it; open the model in float32 (dtype=torch.float32)"
        )
