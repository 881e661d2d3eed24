"""Activations are scaled for training, and the result is folded back so that it speaks of plain ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ...models.errors import UsageError

FLOOR = 1e-3
"""Variance that directions get at least when they are whitened, as a share of the mean one."""


@dataclass(frozen=True, eq=False)
class Scaling:
    """``u = (x - shift) A`` and back.

    Args:
        shift: [channel].
        there: A, [channel, channel].
        back: its inverse.
    """

    shift: Float[Tensor, " channel"]
    there: Float[Tensor, "channel channel"]
    back: Float[Tensor, "channel channel"]

    @classmethod
    def of(cls, x: Float[Tensor, "row channel"], whiten: bool) -> Scaling:
        """Return the scaling of rows like these: to a mean variance of 1, or to white noise (ZCA).

        Raises:
            UsageError: for rows that do not change.
        """
        d, mean = x.shape[1], x.double().mean(0)
        around = x.double() - mean
        variance = float(around.square().mean())
        if not variance > 0:
            raise UsageError("the activations are the same in every row, so there is nothing to learn there")
        if not whiten:
            eye = torch.eye(d)
            return cls(torch.zeros(d), eye / variance**0.5, eye * variance**0.5)
        values, vectors = torch.linalg.eigh(around.mT @ around / len(x))
        root = values.clamp_min(FLOOR * variance).sqrt()
        white = (vectors / root) @ vectors.mT
        return cls(mean.float(), white.float(), ((vectors * root) @ vectors.mT).float())

    def scaled(self, x: Tensor) -> Tensor:
        """Return scaled rows."""
        return (x - self.shift) @ self.there

    def plain(self, u: Tensor) -> Tensor:
        """Return rows as they were."""
        return u @ self.back + self.shift
