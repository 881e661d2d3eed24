"""How well a dictionary explains activations, and how sparsely."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def explained(x: Float[Tensor, "row channel"], y: Float[Tensor, "row channel"]) -> tuple[float, float]:
    """Return both published forms of explained variance of x by y; 1 is perfect, the mean of x gives 0.

    The first is ``1 - sum |x - y|^2 / sum |x - mean|^2`` over all channels together (one less FVU, Shi et al.
    2025); the second the mean over channels of ``1 - var(x - y) / var(x)`` (Surkov et al. 2024), which counts
    a channel of little variance as much as any, and a constant error not at all. Channels that never change
    are left out of it.
    """
    x, y = x.double(), y.double()
    around = (x - x.mean(0)).square().sum(0)
    error = x - y
    changing = around > 0
    left = (error - error.mean(0)).square().sum(0)[changing] / around[changing]
    return (
        1 - float(error.square().sum() / around.sum()),
        1 - float(left.mean()) if len(left) else float("nan"),
    )
