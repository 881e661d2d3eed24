"""Vectors by site as a vector space: sums, products, what lies along others and what does not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, Self

import torch
from torch import Tensor

from ...models.arguments import checked
from ...models.errors import UsageError, WrongTypeError
from ...models.site import Site
from .token_rows import TokenRows


@dataclass(frozen=True, eq=False)
class VectorsBySite:
    """What of a Direction is a vector space; fields as there."""

    vectors: Mapping[Site, Tensor]
    axes: Mapping[Site, int | None] = field(repr=False)
    rows: TokenRows | None = None
    about: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def _made(
        cls,
        vectors: Mapping[Site, Tensor],
        axes: Mapping[Site, int | None],
        rows: TokenRows | None,
        about: Mapping[str, Any],
    ) -> Self:
        flat = all(v.ndim == 1 for v in vectors.values())
        made = cls(vectors, rows=None if flat else rows, about=about)  # type: ignore[call-arg]
        object.__setattr__(made, "axes", {s: axes[s] for s in vectors})
        return made

    def _with(self, vectors: Mapping[Site, Tensor]) -> Self:
        return self._made(vectors, self.axes, self.rows, self.about)

    def __add__(self, other: Self) -> Self:
        if not isinstance(other, VectorsBySite):
            return NotImplemented
        self._check_fits(other)
        both = {
            s: self.vectors[s] + other.vectors[s] if s in self.vectors and s in other.vectors else v
            for s, v in {**self.vectors, **other.vectors}.items()
        }
        left = {s: v for s, v in both.items() if bool((v != 0).any())}  # where they cancel, nothing acts
        same = {k: v for k, v in self.about.items() if other.about.get(k) == v}
        return self._made(left, {**self.axes, **other.axes}, self.rows or other.rows, same)

    def __mul__(self, factor: float) -> Self:
        if not isinstance(factor, Real):
            return NotImplemented
        return self._with({s: float(factor) * v for s, v in self.vectors.items()})

    __rmul__ = __mul__

    def __neg__(self) -> Self:
        return -1 * self

    def __sub__(self, other: Self) -> Self:
        return self + -other if isinstance(other, VectorsBySite) else NotImplemented

    def norm(self) -> float:
        """Return the Euclidean length, over all sites together."""
        return math.hypot(*(length(v) for v in self.vectors.values()))

    def unit(self) -> Self:
        """Return the direction of length 1, over all sites together."""
        return 1 / self.norm() * self

    @checked
    def dot(self, other: Self) -> float:
        """Return the inner product with another direction; sites that only one has add nothing.

        Raises:
            ValueError: for directions that differ in channels, axes, rows or weights.
        """
        self._check_fits(other)
        common = [s for s in self.vectors if s in other.vectors]
        return sum(float((self.vectors[s].double() * other.vectors[s].double()).sum()) for s in common)

    @checked
    def cosine(self, other: Self) -> float:
        """Return the cosine of the angle between two directions, as ``dot``."""
        return self.dot(other) / (self.norm() * other.norm())

    @checked
    def project(self, other: Self) -> Self:
        """Return the part of the direction that lies along another.

        Raises:
            ValueError: if nothing of it does, and as ``dot``.
        """
        along = self.dot(other)
        if along == 0:
            raise UsageError(f"nothing of {self!r} lies along {other!r}: they stand at right angles")
        return along / other.norm() ** 2 * other

    @checked
    def orthogonal(self, *others: Self) -> Self:
        """Return what is left of the direction without the span of others (Gram-Schmidt).

        Raises:
            ValueError: if nothing is left, and as ``dot``.
        """
        for other in others:
            self._check_fits(other)
        sizes = {s: v for d in (self, *others) for s, v in d.vectors.items()}
        if not others:
            return self
        own, rest = _flat(self, sizes), torch.stack([_flat(d, sizes) for d in others], 1)
        basis, found, _ = torch.linalg.svd(rest, full_matrices=False)
        basis = basis[:, found > 1e-9 * found[0]]
        left = own - basis @ (basis.T @ own)
        if left.norm() <= 1e-6 * own.norm():
            raise UsageError("the direction lies in the span of the others, so nothing of it is left")
        parts = left.split([v.numel() for v in sizes.values()])
        made = {s: p.view(v.shape).to(v) for (s, v), p in zip(sizes.items(), parts, strict=True) if p.any()}
        axes = {s: a for d in (*others, self) for s, a in d.axes.items()}
        return self._made(made, axes, self.rows, self.about)

    def _check_fits(self, other: Self) -> None:
        if not isinstance(other, VectorsBySite):
            raise WrongTypeError(f"a direction is compared with directions; this is a {type(other).__name__}")
        for site in set(self.vectors) & set(other.vectors):
            a, b = self.vectors[site], other.vectors[site]
            if a.shape != b.shape or self.axes[site] != other.axes[site]:
                raise UsageError(
                    f"the directions differ at {site}: {_shape(a)} and {_shape(b)} channels, "
                    f"on axes {self.axes[site]} and {other.axes[site]}"
                )
        if self.rows and other.rows and self.rows != other.rows:
            raise UsageError(f"the directions are of different rows: {self.rows} and {other.rows}")
        ours, theirs = self.about.get("weights"), other.about.get("weights")
        if ours and theirs and ours != theirs:
            names = self.about.get("model"), other.about.get("model")
            raise UsageError(f"the directions are of different weights, {names[0]!r} and {names[1]!r}")


def check_vector(site: Site, v: object, rows: TokenRows | None) -> None:
    """Raise what is wrong with the vector at a site."""
    if not isinstance(v, Tensor):
        raise WrongTypeError(f"the vector at {site} is a {type(v).__name__}; give a tensor [channel]")
    norm = length(v)
    of_rows = rows is not None and v.ndim == 2 and len(v) % len(rows.kinds) == 0
    if not (v.ndim == 1 or of_rows) or not 0 < norm < math.inf:
        raise UsageError(
            "a direction needs one finite, non-zero vector [channel] for each site (for rows of a text one a "
            f"kind of row); at {site} it has shape {tuple(v.shape)}, norm {norm}"
        )


def length(v: Tensor) -> float:
    """Return the Euclidean length of a tensor."""
    return float(torch.linalg.vector_norm(v.double()))


def _shape(v: Tensor) -> str:
    return " x ".join(map(str, v.shape))


def _flat(d: VectorsBySite, sites: Mapping[Site, Tensor]) -> Tensor:
    """All vectors as one, with zeros at sites where there is none."""
    return torch.cat(
        [(d.vectors[s] if s in d.vectors else 0 * v).double().flatten() for s, v in sites.items()]
    )
