"""Rows of a store as a dictionary is trained on them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...models.errors import UsageError
from .activations import ActivationStore
from .channels import Channels
from .learning import Learning, Rows
from .scaling import Scaling

LIKE = 32_768
"""Rows that scales and first biases are taken of."""
HELD = 8192
"""Held-out rows that are measured."""


@dataclass(frozen=True, eq=False)
class Data:
    """Rows of one dictionary's channels, scaled.

    Args:
        store: where they lie.
        channels: which.
        read: scaling of what is encoded.
        made: scaling of what is to come out.
        level: the level of each step of the store; None where steps do not count.
    """

    store: ActivationStore
    channels: Channels
    read: Scaling
    made: Scaling
    level: Tensor | None

    @classmethod
    def of(cls, store: ActivationStore, channels: Channels, how: Learning) -> tuple[Data, tuple[float, ...]]:
        """Return the data of some channels, and the noise levels that biases depend on."""
        x, y, _ = plain_rows(store, channels, 0, min(LIKE, store.n_rows(channels.site)))
        made = Scaling.of(y, how.whiten)
        read = Scaling.of(x, how.whiten) if channels.kind == "transcoder" else made
        if not how.conditioned:
            return cls(store, channels, read, made, None), ()
        if not channels.has_steps:
            raise UsageError(
                f"{channels.site} is in a text encoder, which has no steps; leave out conditioned"
            )
        sigmas = [step.sigma for step in store.steps]
        levels = tuple(sorted(set(sigmas), reverse=True))
        return cls(store, channels, read, made, torch.tensor([levels.index(s) for s in sigmas])), levels

    def held(self) -> Rows:
        """Return the rows that are measured: held-out ones, or the first where one sample is all there is."""
        n = self.store.n_rows(self.channels.site, held=True)
        some = min(HELD, n or self.store.n_rows(self.channels.site))
        return self.rows(0, some, held=n > 0)

    def rows(self, start: int, stop: int, held: bool = False) -> Rows:
        """Return some rows of the store, scaled."""
        x, y, step = plain_rows(self.store, self.channels, start, stop, held)
        level = torch.zeros_like(step) if self.level is None else self.level[step]
        return self.read.scaled(x), self.made.scaled(y), level

    def batch(self, update: int, rows: int, seed: int) -> Rows:
        """Return the rows of an update: all of the store, then all of it in another order."""
        n = self.store.n_rows(self.channels.site)
        rows = min(rows, n)
        turn, i = divmod(update, n // rows)
        order = torch.randperm(n // rows, generator=torch.Generator().manual_seed(2**20 * seed + turn))
        start = int(order[i]) * rows
        return self.rows(start, start + rows)


def plain_rows(
    store: ActivationStore, channels: Channels, start: int, stop: int, held: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what is encoded [row, channel], what is to come out [row, channel], positions of steps [row]."""
    y, step = store.rows(channels.site, start, stop, held)
    if channels.source is None:
        return y, y, step
    x, _ = store.rows(channels.source, start, stop, held)
    return (x, y, step) if channels.kind == "transcoder" else (y - x, y - x, step)
