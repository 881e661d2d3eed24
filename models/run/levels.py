"""When: one step of sampling, and a choice of steps, guidance branch and rows."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

Branch = Literal["cond", "uncond"]


@dataclass(frozen=True)
class Step:
    """One call of the denoiser during sampling.

    Args:
        index: position in the run; 0 is the noisiest.
        t: the time the network is told.
        sigma: noise level ``s_t / a_t`` of ``x_t = a_t x_0 + s_t eps``, comparable across schedulers.

    With a scheduler that calls the network more than once per step (Heun, KDPM2, PNDM), each call is a Step.
    """

    index: int
    t: float
    sigma: float


@dataclass(frozen=True)
class When:
    """Which moments, guidance branch and samples of a run.

    Args:
        steps: step indices; None is all.
        branch: ``"cond"`` (the rows that read the prompt), ``"uncond"`` (the rows that read the negative
            prompt), or None for both.
        rows: sample indices inside the batch; None is all.
    """

    steps: Collection[int] | None = None
    branch: Branch | None = "cond"
    rows: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.branch not in ("cond", "uncond", None):
            raise ValueError(f"branch is {self.branch!r}; it is 'cond', 'uncond' or None (both)")
        if self.steps is not None and (not self.steps or min(self.steps) < 0):
            raise ValueError(f"steps is {self.steps!r}; it holds indices 0, 1, ... (0 is the noisiest)")

    def __contains__(self, step: object) -> bool:
        index = step.index if isinstance(step, Step) else step
        return self.steps is None or index in self.steps

    def check(self, n_steps: int, n_rows: int, guided: bool) -> None:
        """Raise ValueError if this can never happen in a run of so many steps and rows."""
        if self.steps is not None and max(self.steps) >= n_steps:
            raise ValueError(f"steps {self.steps!r} reach past the run, which has steps 0 to {n_steps - 1}")
        if self.rows is not None and not all(0 <= r < n_rows for r in self.rows):
            raise ValueError(f"rows {self.rows!r} are not all among the run's samples 0 to {n_rows - 1}")
        if self.branch == "uncond" and not guided:
            raise ValueError("branch 'uncond' does not exist in an unguided run; set guidance above 1")


@dataclass(frozen=True)
class Now:
    """What a hook may know about the call it sits in.

    Args:
        step: the step, or None while text is encoded.
        rows: where each guidance branch lies in the batch.
        guidance: the scale of the run, for networks that are told it.
    """

    step: Step | None
    rows: Mapping[Branch, slice]
    guidance: float | None = None

    def select(self, when: When) -> list[int] | None:
        """Return the batch rows that ``when`` speaks of in this call, or None if it does not speak of it."""
        if self.step is not None and self.step not in when:
            return None
        branches = [b for b in self.rows if when.branch in (None, b)]
        rows = [i for b in branches for i in _pick(self.rows[b], when.rows)]
        return rows or None


def _pick(rows: slice, chosen: tuple[int, ...] | None) -> list[int]:
    every = list(range(rows.start, rows.stop))
    return every if chosen is None else [every[i] for i in chosen]
