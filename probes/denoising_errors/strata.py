"""Where an integral over the log signal-to-noise ratio is looked at, and how well that is known."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TypedDict

import torch
from jaxtyping import Float
from torch import Tensor

from ...models.arguments import check_fields, checked
from ...models.base import Model
from ...models.errors import UsageError

USUAL = (-5.3, 7.0)
"""The range of log-SNR that is taken where the model was trained on it."""
MOST = 2**20
"""Levels, and draws, that nobody means to exceed."""
LEAST = 4
"""Neighbouring levels that one standard error takes, where each has a single draw."""


class StrataOptions(TypedDict, total=False):
    """The keywords of ``Strata``, the same in every function that looks at denoising errors."""

    log_snr: tuple[float, float] | None
    levels: int
    draws: int
    seed: int
    stderr: float | None
    relative: float | None
    most_draws: int


@dataclass(frozen=True)
class Strata:
    """Noise levels and noise draws of integrals over the log-SNR.

    The range is cut into equal strata and each is looked at in its middle, so the weight of a level is the
    width of its stratum, and the weights add up to the range. A draw is one Gaussian for each level and its
    negative (an antithetic pair), which all conditions share; another level has another Gaussian.

    Middles are not drawn: the rule errs by the width squared, which no standard error tells; more levels do.

    Args:
        log_snr: the range, low and high; None is -5.3 to 7, or what of it the model was trained on.
        levels: number of strata.
        draws: at least so many draws at each level.
        seed: of the noise of the first picture; picture i has seed + i, so pictures are as if each alone.
        stderr: draw on until standard errors are at most so many nats ...
        relative: ... or at most this share of what they are of; what is near 0 needs ``stderr``.
        most_draws: where a standard error is asked for, give up after so many.

    Raises:
        ValueError: for ranges and numbers that cannot be, and for so few levels and draws that nothing tells
            a standard error.
    """

    log_snr: tuple[float, float] | None = None
    levels: int = 16
    draws: int = 1
    seed: int = 0
    stderr: float | None = None
    relative: float | None = None
    most_draws: int = 64

    def __post_init__(self) -> None:
        check_fields(self)
        if self.log_snr is not None and not (len(self.log_snr) == 2 and self.log_snr[0] < self.log_snr[1]):
            raise UsageError(f"log_snr is {self.log_snr}; it is a range, low and high, like {USUAL}")
        for name in ("levels", "draws"):
            if not 1 <= getattr(self, name) <= MOST:
                raise UsageError(f"{name} is {getattr(self, name)}; it lies between 1 and {MOST}")
        for name in ("stderr", "relative"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise UsageError(f"{name} is {value}; it is a number above 0, or None")
        if self.draws == 1 and self.levels < LEAST:
            raise UsageError(
                f"one draw at {self.levels} levels tells no standard error; give draws=2, or {LEAST} levels"
            )
        if self.adaptive and self.most_draws < self.draws:
            raise UsageError(f"most_draws is {self.most_draws}, below draws, {self.draws}; give as many")

    @property
    def adaptive(self) -> bool:
        """Whether more is drawn where a standard error is too large."""
        return self.stderr is not None or self.relative is not None

    @property
    def last(self) -> int:
        """So many draws are made at most."""
        return self.most_draws if self.adaptive else self.draws

    @checked
    def middles(self, model: Model) -> tuple[tuple[float, ...], float]:
        """Return the log-SNR of each level, noisiest first, and the width of a stratum.

        Raises:
            ValueError: for a range that the model was not trained on.
        """
        known = model.levels
        trained = (known[0].log_snr, known[-1].log_snr)
        low, high = self.log_snr or (max(USUAL[0], trained[0]), min(USUAL[1], trained[1]))
        if low < trained[0] - 1e-6 or high > trained[1] + 1e-6 or not low < high:
            raise UsageError(
                f"log_snr is {low:g} to {high:g}, but {model.name} was trained from "
                f"{trained[0]:.4g} to {trained[1]:.4g}"
            )
        width = (high - low) / self.levels
        return tuple(low + (k + 0.5) * width for k in range(self.levels)), width

    @checked
    def seeds(self, picture: int, draw: int, levels: range) -> list[int]:
        """Return the seed of the noise at each of some levels: of one draw, for one picture."""
        return [_mixed(self.seed + picture, draw, level) for level in levels]

    @checked
    def reached(self, value: float, error: float) -> bool:
        """Whether a standard error is as small as was asked for; NaN never is."""
        return error <= max(self.stderr or 0.0, (self.relative or 0.0) * abs(value))


def _mixed(*numbers: int) -> int:
    """A seed for each combination of numbers; sums of them would meet each other."""
    return int.from_bytes(hashlib.sha256(repr(numbers).encode()).digest()[:7], "big")


def standard_error(values: Float[Tensor, "... draw level"]) -> Float[Tensor, "..."]:
    """Return the standard error of ``values.mean(-2).sum(-1)``: of a sum over levels, each with its weight.

    The noise at each level is seen in the differences of its draws. Where there is one draw, it is seen in
    third differences of neighbouring levels, ``(y[k] - 3 y[k+1] + 3 y[k+2] - y[k+3])² / 20``, in which a
    smooth curve over the levels cancels and noise does not (Hall, Kay & Titterington 1990), each level with
    the mean of those that it is in. What of the curve is left makes the error too large where there is
    little noise; two draws end that. The spread over all levels would count the whole curve as noise.

    Raises:
        ValueError: for a single draw at fewer than four levels.
    """
    draws, levels = values.shape[-2:]
    if draws > 1:
        return (values.var(-2).sum(-1) / draws).sqrt()
    if levels < LEAST:
        raise UsageError(f"one draw at {levels} levels tells no standard error; give draws=2")
    found = torch.diff(values[..., 0, :], 3).square() / 20
    at = torch.arange(levels, device=values.device)
    within = torch.stack([at + 1, levels - at]).amin(0).clamp(max=min(4, levels - 3))  # differences it is in
    counted = (1 / within.to(values.dtype)).unfold(0, 4, 1).sum(-1)
    return (found * counted).sum(-1).sqrt()
