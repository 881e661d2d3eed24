"""At which steps a guidance acts, and how strongly: all, some, or a factor for each."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from numbers import Real
from typing import TypeAlias

import torch
from torch import Tensor

from ..arguments import checked
from ..errors import UsageError
from ..run.levels import Step

ActsAt: TypeAlias = Mapping[int, float] | Collection[int] | None
"""Indices of steps, ``range(12)``; a factor for each, ``linear(20)``; None is all steps, at factor 1."""

MOST = 10_000
"""Steps that no run exceeds."""


def check_acts(what: str, steps: ActsAt, n_steps: int | None = None) -> None:
    """Raise ValueError for steps at which nothing can act.

    Args:
        what: whose steps they are, for the message.
        steps: which.
        n_steps: of the run; None while it is not known.
    """
    if steps is None:
        return
    if not steps or min(steps) < 0:
        raise UsageError(f"{what} acts at steps {steps!r}; they are indices 0, 1, ... (0 is the noisiest)")
    factors = steps.values() if isinstance(steps, Mapping) else ()
    if wrong := [f for f in factors if not (isinstance(f, Real) and math.isfinite(f))]:
        raise UsageError(
            f"{what} has the factor {wrong[0]!r}; factors are finite numbers, 1 is full strength"
        )
    if n_steps is not None and max(steps) >= n_steps:
        raise UsageError(
            f"{what} acts at steps up to {max(steps)}, but the run has steps 0 to {n_steps - 1}; "
            f"give some of these, such as range({n_steps})"
        )


def factor(steps: ActsAt, step: Step) -> float:
    """Return how strongly something acts at a step: 0 is not at all, 1 fully.

    Raises:
        ValueError: for a step that is no position in a run, where some are chosen.
    """
    if steps is None:
        return 1.0
    if step.index < 0:
        raise UsageError(
            f"guidance acts at steps {steps!r} of a run, but {step} is in none; leave steps out, or take one "
            "of model.steps(n)"
        )
    return float(steps.get(step.index, 0.0)) if isinstance(steps, Mapping) else float(step.index in steps)


def factors(steps: ActsAt, each: Sequence[Step], like: Tensor) -> float | Tensor:
    """Return the factor of all rows; where they differ, one a row, which broadcasts over [row, ...]."""
    found = [factor(steps, step) for step in each]
    if len(set(found)) == 1:
        return found[0]
    return torch.tensor(found, dtype=like.dtype, device=like.device).view(-1, *[1] * (like.ndim - 1))


@checked
def linear(steps: int) -> dict[int, float]:
    """Return factors that rise in a line from 0, with mean 1 (Wang et al. 2024, "linear").

    Raises:
        ValueError: for fewer than 2 steps, and more than any run has.

    >>> linear(3)
    {0: 0.0, 1: 1.0, 2: 2.0}
    """
    return {i: 2 * share for i, share in _shares(steps)}


@checked
def cosine(steps: int) -> dict[int, float]:
    """Return factors that rise as half a cosine from 0, with mean 1 (Wang et al. 2024, "cosine").

    Raises:
        ValueError: for fewer than 2 steps, and more than any run has.

    >>> {i: round(f, 6) for i, f in cosine(3).items()}
    {0: 0.0, 1: 1.0, 2: 2.0}
    """
    return {i: 1 - math.cos(math.pi * share) for i, share in _shares(steps)}


def _shares(steps: int) -> list[tuple[int, float]]:
    if not 2 <= steps <= MOST:
        raise UsageError(f"steps is {steps}; factors rise over 2 to {MOST} steps, as many as the run has")
    return [(i, i / (steps - 1)) for i in range(steps)]
