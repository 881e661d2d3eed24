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
        """Join the terms; in an order of their own, so that the order of the sum does not matter."""
        a, b = self._terms(), other._terms()
        return LowRank(torch.cat([a.left, b.left], 1), torch.cat([a.right, b.right], 0))._terms()

    def _terms(self) -> LowRank:
        """Sort by the rows of the right factor, and add up what shares a row: e - e is exactly nothing."""
        right, place = torch.unique(self.right + 0.0, dim=0, return_inverse=True)  # no -0.0
        left = self.left.new_zeros(len(self.left), len(right)).index_add(1, place, self.left)
        return LowRank(left, right)

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


@dataclass(frozen=True)
class Spectrum:
    """The singular values of a change: how many directions it has, and what they hold.

    Args:
        values: the largest first, in float64; those that are no more than rounding left out.
    """

    values: Float[Tensor, " directions"]

    @property
    def rank(self) -> int:
        """The numerical rank."""
        return len(self.values)

    @property
    def norm(self) -> float:
        """The Frobenius norm."""
        return float(torch.linalg.vector_norm(self.values))

    def energy(self, k: int) -> float:
        """Share of the squared norm that the first k directions hold; of no change, 0."""
        squares = self.values.square()
        return float(squares[:k].sum() / squares.sum()) if len(squares) else 0.0

    def directions(self, share: float) -> int:
        """How many directions hold a share of the squared norm."""
        squares = self.values.square()
        return int((squares.cumsum(0) < share * squares.sum()).sum() + 1) if len(squares) else 0


def spectrum(delta: Delta) -> Spectrum:
    """Return the spectrum of a change; more axes than two count as [out, rest]."""
    if isinstance(delta, LowRank):
        left, right = (torch.linalg.qr(t.double()).R for t in (delta.left, delta.right.T))
        return _told(delta, torch.linalg.svdvals(left @ right.T))
    return _told(delta, torch.linalg.svdvals(_matrix(delta)))


def factored(delta: Delta) -> tuple[LowRank, Spectrum]:
    """Return a change as factors in float64, of its numerical rank, and its spectrum.

    Direction i is column i of left and row i of right, the strongest first, its singular value shared equally
    by both: the first k are the nearest change of rank k (Eckart and Young 1936). More axes than two count as
    [out, rest].
    """
    if isinstance(delta, LowRank):
        left, right = (torch.linalg.qr(t.double()) for t in (delta.left, delta.right.T))
        u, values, vh = torch.linalg.svd(left.R @ right.R.T, full_matrices=False)
        u, vh = left.Q @ u, vh @ right.Q.T
    else:
        u, values, vh = torch.linalg.svd(_matrix(delta), full_matrices=False)
    told = _told(delta, values)
    root, some = told.values.sqrt(), slice(told.rank)
    return LowRank(u[:, some] * root, root[:, None] * vh[some]), told


def _matrix(delta: Tensor) -> Tensor:
    return delta.double().reshape(delta.shape[0] if delta.ndim else 1, -1)


def _told(delta: Delta, values: Tensor) -> Spectrum:
    dtype = delta.left.dtype if isinstance(delta, LowRank) else delta.dtype
    least = max(delta.shape, default=1) * torch.finfo(dtype).eps * float(values.max())
    return Spectrum(values[values > least])


def tensors(delta: Delta) -> dict[str, Tensor]:
    """Return what a change is made of, by name: ``left`` and ``right``, or ``delta``."""
    return {"left": delta.left, "right": delta.right} if isinstance(delta, LowRank) else {"delta": delta}
