"""What a causal tracing will take, counted before it runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ParamSpec

import torch

from ...models.arguments import checked
from ...models.base import Model
from ...models.errors import UsageError
from ...models.guidance.cfg import CFG
from ...models.guidance.value import Guidance
from ...models.run.context import When
from ...models.run.sampling import Sampling
from ...probes.sweep.partition import ChangedBatch, PlainBatch, key_of, partition
from ...probes.trace import trace
from .denoiser_tracing import denoiser_tracing, trace_denoiser
from .result import Mediation
from .text_tracing import text_tracing, trace_text
from .tracing import Tracing

P = ParamSpec("P")
_OPENED: dict[Any, Callable[..., Tracing]] = {trace_denoiser: denoiser_tracing, trace_text: text_tracing}
MOST = 10_000
"""Samples in one batch that are measured."""
_NOT_COUNTED = ("store", "progress")


@dataclass(frozen=True)
class StudyPlan:
    """What a causal tracing will take.

    Args:
        what: the function.
        units: prompts x seeds: what a store keeps one by one.
        runs: different sampling runs, the clean ones included.
        rows: denoiser rows, without what a store holds already.
        exact: whether it is all of them to the row; else at most so many, as the guidance leaves some out.
        reference_rows: what the published scheme takes for the same scores.
        samples: the most that one batch holds.
        kept: bytes of activations that are kept at a time, of one prompt and seed.
    """

    what: str
    units: int
    runs: int
    rows: int
    exact: bool
    reference_rows: int
    samples: int
    kept: int

    @checked
    def seconds(self, pace: float) -> float:
        """Return how long it takes at so many rows a second, as ``rows_per_second`` measures it.

        Raises:
            ValueError: for a pace that is not above 0.
        """
        if not pace > 0:
            raise UsageError(f"pace is {pace}; it is rows a second, above 0")
        return self.rows / pace


def plan_study(function: Callable[P, Mediation], *args: P.args, **kwargs: P.kwargs) -> StudyPlan:
    """Count what a call of ``trace_denoiser`` or ``trace_text`` will take.

    Texts are encoded, and the kept activations measured in a run of one step; nothing else is run.

    Args:
        function: ``trace_denoiser`` or ``trace_text``.
        *args: what it will be given.
        **kwargs: the same, by name.

    Raises:
        ValueError: for another function; else as the function.

    >>> from denoscope.analysis import metrics, plan_study, trace_text
    >>> how = {"seeds": [0, 1], "metric": metrics.latent_distance(), "layers": [0], "steps": 4}
    >>> plan_study(trace_text, load("emoji"), ["a red heart"], "heart", **how).exact
    True
    """
    opened = _OPENED.get(function)
    if opened is None:
        names = " and ".join(sorted(f.__name__ for f in _OPENED))
        name = getattr(function, "__qualname__", repr(function))
        raise UsageError(f"{name} cannot be counted before it runs; {names} can")
    given: dict[str, Any] = {name: value for name, value in kwargs.items() if name not in _NOT_COUNTED}
    return planned(opened(*args, **given))


def planned(tracing: Tracing) -> StudyPlan:
    """Count what a tracing will take."""
    of, seeds = tracing.experiment, tracing.experiment.seeds
    guidance = Sampling(guidance=of.settings["guidance"]).guided(of.model)
    branches, steps = of.model.branch_names(guidance), len(of.model.steps(of.settings["steps"]))
    rows, runs, most = 0, 0, 1
    for p in range(len(of.clean)):
        restored = (tracing.counted or tracing.restore)(p, seeds[0])
        swept = of.runs(p, seeds[0], restored)
        plain, changed = partition(swept, of.settings["batch"], branches)
        batches: list[PlainBatch | ChangedBatch] = [*plain, *changed]
        rows += restored.rows + sum(one.rows(len(branches), steps) for one in batches)
        runs += len({key_of(run) for run in swept}) + restored.rows // of.rows_per_run
        most = max(most, *(one.samples for one in batches))
    return StudyPlan(
        what=tracing.recipe["study"],
        units=len(of.clean) * len(seeds),
        runs=runs * len(seeds),
        rows=rows * len(seeds),
        exact=_every_branch(guidance),
        reference_rows=tracing.reference_rows,
        samples=most,
        kept=_kept(tracing),
    )  # fmt: skip


def _every_branch(guidance: Guidance) -> bool:
    """Whether all branches are computed at every step."""
    if isinstance(guidance, CFG):
        return guidance.steps is None
    return type(guidance).active is Guidance.active


def _kept(tracing: Tracing) -> int:
    if not tracing.keeps:
        return 0
    of = tracing.experiment
    one = trace(
        of.model, [of.clean[0]], seeds=[0], sites=tracing.keeps, when=When([0]), steps=1,
        guidance=of.settings["guidance"],
    )  # fmt: skip
    runs = 1 + (of.corruption.draws if tracing.direct else 0)
    return one.nbytes * tracing.kept_steps * runs


@checked
def rows_per_second(
    model: Model, *, samples: int = 16, guidance: float | None = None, prompt: str = "", steps: int = 4
) -> float:
    """Measure how many denoiser rows this machine makes in a second, in batches of so many samples.

    Args:
        model: an opened model.
        samples: in one batch.
        guidance: guidance scale; None is the model's default.
        prompt: what is painted.
        steps: how many are measured; the quickest counts, as others may use the machine too.

    Raises:
        ValueError: for no samples or steps, and for more samples than anybody has memory for.
    """
    if not 1 <= samples <= MOST or steps < 1:
        raise UsageError(f"samples is {samples}, steps {steps}; give 1 to {MOST} samples, at least 1 step")
    quickest, rows, before = float("inf"), 0, None
    with torch.no_grad():
        run = model.sample([prompt] * samples, seeds=range(samples), steps=steps + 1, guidance=guidance)
        for state in run:
            rows, now = state.rows, _finished(model)
            if before is not None:  # the first step warms up
                quickest = min(quickest, now - before)
            before = now
    return rows / quickest


def _finished(model: Model) -> float:
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    return time.perf_counter()
