"""Sparse codes: for each row the features that are on and how strongly, and never the whole width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag

from ...models.arguments import check_fields, checked
from ...models.errors import UsageError


@dataclass(frozen=True, eq=False)
class Codes:
    """What a dictionary says of activations: few features a row.

    Entries of one row stand together; a feature stands at most once in a row. All other features are 0.

    Args:
        values: how strongly, [entry]; 0 counts as off.
        features: which feature, [entry].
        starts: where each row's entries begin, [row].
        shape: of the rows: ("sample", "height", "width"), for example.
        width: how many features there are.

    Raises:
        ValueError: for sizes that do not fit together, and features beyond the width.
    """

    values: Float[Tensor, " entry"]
    features: Int[Tensor, " entry"]
    starts: Int[Tensor, " row"]
    shape: tuple[int, ...]
    width: int

    def __post_init__(self) -> None:
        check_fields(self)
        n = len(self.values) if self.values.ndim else -1
        whole = all(t.dtype in (torch.int32, torch.int64) for t in (self.features, self.starts))
        fits = self.values.ndim == self.features.ndim == self.starts.ndim == 1 and n == len(self.features)
        if (
            not fits
            or not whole
            or len(self.starts) != prod(self.shape)
            or min((self.width, *self.shape)) < 0
        ):
            raise UsageError(
                f"codes are values [entry], whole features [entry], starts [row] of {self.shape} rows; got "
                f"{tuple(self.values.shape)}, {tuple(self.features.shape)}, {tuple(self.starts.shape)}"
            )
        if n and not 0 <= int(self.features.min()) <= int(self.features.max()) < self.width:
            raise UsageError(f"the codes name features beyond 0 to {self.width - 1}")

    def __repr__(self) -> str:
        return f"Codes({self.shape} rows of {self.width} features; {self.l0:.4g} on in a row)"

    @property
    def rows(self) -> Tensor:
        """The row of each entry, [entry]."""
        stops = torch.cat([self.starts[1:], self.starts.new_tensor([len(self.values)])])
        row = torch.arange(len(self.starts), device=self.starts.device)
        return row.repeat_interleave(stops[: len(row)] - self.starts)

    @property
    def l0(self) -> float:
        """How many features are on in a row, in the mean."""
        return float((self.values != 0).sum()) / max(1, len(self.starts))

    def dense(self) -> Float[Tensor, "... feature"]:
        """Return all features, zeros included, [*rows, feature]; large."""
        flat = self.values.new_zeros(len(self.starts), self.width)
        flat[self.rows, self.features] = self.values
        return flat.reshape(*self.shape, self.width)

    @checked
    def of(self, features: Sequence[int]) -> Float[Tensor, "... feature"]:
        """Return some features alone, [*rows, feature], in the order given.

        Raises:
            ValueError: for features that are not there, or named twice.
        """
        chosen = check_features(features, self.width)
        column = self.features.new_full((self.width,), -1)
        column[chosen] = torch.arange(len(chosen), device=column.device)
        at = column[self.features]
        here = at >= 0
        flat = self.values.new_zeros(len(self.starts), len(chosen))
        flat[self.rows[here], at[here]] = self.values[here]
        return flat.reshape(*self.shape, len(chosen))

    def times(self, decoder: Float[Tensor, "feature channel"]) -> Float[Tensor, "row channel"]:
        """Return the product with a decoder, row by row: k rows of it are read and none of the zeros."""
        return embedding_bag(
            self.features, decoder, self.starts, mode="sum", per_sample_weights=self.values.to(decoder.dtype)
        )


def check_features(features: Sequence[int], width: int) -> list[int]:
    """Return features as a list, each once and in range.

    Raises:
        UsageError: otherwise; it names those that are wrong.
    """
    chosen = list(features)
    beyond = [f for f in chosen if not 0 <= f < width]
    if not chosen or beyond:
        what = f"{beyond} are not among them" if beyond else "none is named"
        raise UsageError(f"the dictionary has features 0 to {width - 1}; {what}")
    if len(set(chosen)) < len(chosen):
        twice = sorted({f for f in chosen if chosen.count(f) > 1})
        raise UsageError(f"features {twice} are named twice; name each once")
    return chosen


def top_k(pre: Float[Tensor, "row feature"], k: int) -> Codes:
    """Return the k largest of each row; negative ones count as 0."""
    values, features = pre.topk(k, dim=-1, sorted=False)
    starts = torch.arange(0, len(pre) * k, k, device=pre.device)
    return Codes(values.relu().reshape(-1), features.reshape(-1), starts, (len(pre),), pre.shape[1])


def batch_top_k(pre: Float[Tensor, "row feature"], k: int) -> Codes:
    """Return the ``k x rows`` largest of all rows together (Bussmann et al. 2024); those above 0."""
    flat = pre.detach().reshape(-1)
    least = flat.topk(k * len(pre), sorted=False).values.min().clamp_min(0)
    return _where(pre, (pre.detach() >= least) & (pre.detach() > 0))


def above(pre: Float[Tensor, "row feature"], threshold: Float[Tensor, " feature"]) -> Codes:
    """Return what lies above 0 and a threshold of each feature (JumpReLU, Rajamanoharan et al. 2024)."""
    return _where(pre, (pre > threshold) & (pre > 0))


def joined(parts: Sequence[Codes], shape: tuple[int, ...]) -> Codes:
    """Return the codes of rows that were encoded one part after another, in another shape."""
    sizes = [len(p.values) for p in parts]
    before = [sum(sizes[:i]) for i in range(len(sizes))]
    return Codes(
        torch.cat([p.values for p in parts]),
        torch.cat([p.features for p in parts]),
        torch.cat([p.starts + n for p, n in zip(parts, before, strict=True)]),
        shape,
        parts[0].width,
    )


def _where(pre: Tensor, on: Tensor) -> Codes:
    rows, features = on.nonzero(as_tuple=True)
    counts = on.sum(-1)
    return Codes(pre[rows, features], features, counts.cumsum(0) - counts, (len(pre),), pre.shape[1])
