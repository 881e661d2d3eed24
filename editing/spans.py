"""What some rows span, and what lies outside of it: for keys whose outputs must not move at all."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ..models.errors import UsageError


def basis_of(rows: Float[Tensor, "row in"], tolerance: float = 1e-10) -> Float[Tensor, "rank in"]:
    """Return an orthonormal basis of what some rows span; directions below the tolerance, relative, are none.

    Raises:
        ValueError: if they span the whole space.
    """
    factor = rows[:0].double()
    for some in rows.split(max(4096, rows.shape[1])):  # thin: many texts have more tokens than fit at once
        factor = torch.linalg.qr(torch.cat([factor, some.double()]), mode="r").R
    _, values, directions = torch.linalg.svd(factor, full_matrices=False)
    basis: Tensor = directions[values > tolerance * values.max()]
    if len(basis) == rows.shape[1]:
        raise UsageError(
            f"the {len(rows)} rows that must stay exactly span all {rows.shape[1]} directions of the layer's "
            "input, so no change is left; hold fewer texts, or keep some of them only nearly"
        )
    return basis


def free_part(rows: Float[Tensor, "row in"], basis: Float[Tensor, "rank in"]) -> Float[Tensor, "row in"]:
    """Return what of each row lies outside of an orthonormal basis; taken off twice, for rounding."""
    for _ in range(2):
        rows = rows - rows @ basis.T @ basis
    return rows
