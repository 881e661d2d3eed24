"""A change of one weight: two thin factors, or the full tensor where that is smaller."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..models.errors import UsageError


@dataclass(frozen=True, eq=False)
class LowRank:
    """A matrix kept as a product of two thin ones.

    Args:
        left: [out, rank].
        right: [rank, in].

    Raises:
        ValueError: if the two do not fit together.

    >>> LowRank(torch.ones(4, 1), torch.ones(1, 3)).shape
    torch.Size([4, 3])
    """

    left: Float[Tensor, "out rank"]
    right: Float[Tensor, "rank in"]

    def __post_init__(self) -> None:
        a, b = tuple(self.left.shape), tuple(self.right.shape)
        if len(a) != 2 or len(b) != 2 or a[1] != b[0]:
            raise UsageError(
                f"factors of shapes {a} and {b} have no product; give [out, rank] and [rank, in]"
            )

    @property
    def shape(self) -> torch.Size:
        """Shape of the product, [out, in]."""
        return torch.Size((self.left.shape[0], self.right.shape[1]))

    def dense(self) -> Float[Tensor, "out in"]:
        """Return the product, computed in float64."""
        return self.left.double() @ self.right.double()

    def compact(self) -> LowRank | Tensor:
        """Return whichever is smaller: these factors, or their product."""
        return self if self.left.numel() + self.right.numel() < self.shape.numel() else self.dense()

    def __add__(self, other: LowRank) -> LowRank:
        if self.right.shape == other.right.shape and torch.equal(self.right, other.right):
            return LowRank(self.left + other.left, self.right)  # so that e - e is exactly nothing
        return LowRank(torch.cat([self.left, other.left], 1), torch.cat([self.right, other.right], 0))

    def __mul__(self, factor: float) -> LowRank:
        return LowRank(factor * self.left, self.right)

    __rmul__ = __mul__


Delta = LowRank | Tensor


def rows(delta: Delta, some: slice) -> Tensor:
    """Return some rows (of the first dimension) of the full tensor, in float64."""
    if isinstance(delta, LowRank):
        return delta.left[some].double() @ delta.right.double()
    return (delta if delta.ndim else delta[None])[some].double()


def add(a: Delta, b: Delta) -> Delta:
    """Return the sum: joined factors while they are smaller than the full tensor."""
    if isinstance(a, LowRank) and isinstance(b, LowRank):
        return (a + b).compact()
    return dense(a) + dense(b)


def dense(delta: Delta) -> Tensor:
    """Return the full tensor, in float64."""
    return delta.dense() if isinstance(delta, LowRank) else delta.double()


def tensors(delta: Delta) -> dict[str, Tensor]:
    """Return what a change is made of, by name: ``left`` and ``right``, or ``delta``."""
    return {"left": delta.left, "right": delta.right} if isinstance(delta, LowRank) else {"delta": delta}
