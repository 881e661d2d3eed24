"""What an attack may spend. Equal budgets make edits comparable; none is a bound on what more would do."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...models.arguments import check_fields, checked
from ...models.errors import UsageError


@dataclass(frozen=True)
class Budget:
    """What each attack may spend; the defaults are a sheet of some minutes on the embedded model.

    Args:
        steps: of Adam, after which a fitted embedding is looked at; rising.
        tokens: of so many tokens, each a fit of its own.
        starts: where a fit starts: ``"about"``, ``"instead"``, or both.
        rate: learning rate of fitted embeddings (Pham et al. 2024 take 5e-3).
        tuning: steps of tuning after which the model is looked at; rising.
        tuning_rate: its learning rate.
        batch: rows in a step of either.
        pictures: of the concept, which the attacks are given.
        best_of: so many pictures for each seed, of which the best counts; the same for edited and clean.

    Raises:
        ValueError: for a number that makes no sense.

    >>> Budget.short().rows(1)
    120
    """

    steps: tuple[int, ...] = (25, 75, 150)
    tokens: tuple[int, ...] = (1, 3)
    starts: tuple[str, ...] = ("about", "instead")
    rate: float = 5e-3
    tuning: tuple[int, ...] = (5, 25, 75)
    tuning_rate: float = 1e-4
    batch: int = 4
    pictures: int = 8
    best_of: int = 1

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("steps", "tuning", "tokens"):
            some = getattr(self, name)
            if not some or list(some) != sorted({n for n in some if n > 0}):
                raise UsageError(f"{name} is {some}; give whole numbers from 1 up, rising, such as (25, 75)")
        if not self.starts or not {*self.starts} <= {"about", "instead"}:
            raise UsageError(f"starts is {self.starts}; it is ('about',), ('instead',) or both")
        for name in ("batch", "pictures", "best_of"):
            if not 1 <= getattr(self, name) <= 10_000:
                raise UsageError(f"{name} is {getattr(self, name)}; give at least 1")
        for name in ("rate", "tuning_rate"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"{name} is {getattr(self, name)}; it is a number from 0 up")

    @classmethod
    def short(cls) -> Budget:
        """Return a budget for a first look: one fit of one token."""
        return cls(steps=(30,), tokens=(1,), starts=("about",), tuning=(20,), pictures=4)

    @checked
    def rows(self, fits: int) -> int:
        """Return how many denoiser rows so many fits take; each goes forward and backward."""
        return fits * self.steps[-1] * self.batch
