"""What long work will take, counted before it runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, ParamSpec

import torch

from ...models.arguments import checked
from ...models.base import Model
from ...models.errors import UsageError
from ...models.run.sampling import Sampling
from ...probes.sweep.keeping import on_disk
from ...probes.sweep.partition import ChangedBatch, PlainBatch, key_of, partition
from ..edit_evaluation.evaluate import evaluate_edit
from ..features.finding import bias_features
from ..plans import StudyPlan, evaluation_plan, every_branch, features_plan
from .denoiser_tracing import denoiser_tracing, trace_denoiser
from .text_tracing import text_tracing, trace_text
from .tracing import Tracing

P = ParamSpec("P")
_OPENED: dict[Any, Callable[..., Tracing]] = {trace_denoiser: denoiser_tracing, trace_text: text_tracing}
_COUNTED: dict[Any, Callable[..., StudyPlan]] = {
    evaluate_edit: evaluation_plan,
    bias_features: features_plan,
}
MOST = 10_000
"""Samples in one batch that are measured."""
_NOT_COUNTED = ("store", "progress")


def plan_study(function: Callable[P, Any], *args: P.args, **kwargs: P.kwargs) -> StudyPlan:
    """Count what a call of a function will take, before it runs.

    Texts are encoded, and the denoiser is called once, to see how large its activations are.

    Args:
        function: ``trace_denoiser``, ``trace_text``, ``evaluate_edit`` or ``bias_features``.
        *args: what it will be given.
        **kwargs: the same, by name.

    Raises:
        ValueError: for another function; else as the function.

    >>> from denoscope.analysis import metrics, plan_study, trace_text
    >>> how = {"seeds": [0, 1], "metric": metrics.latent_distance(), "layers": [0], "steps": 4}
    >>> plan_study(trace_text, load("emoji"), ["a red heart"], "heart", **how).exact
    True
    """
    given: dict[str, Any] = {name: value for name, value in kwargs.items() if name not in _NOT_COUNTED}
    counted = _COUNTED.get(function)
    if counted is not None:
        return counted(*args, **given)
    opened = _OPENED.get(function)
    if opened is None:
        names = ", ".join(sorted(f.__name__ for f in (*_OPENED, *_COUNTED)))
        name = getattr(function, "__qualname__", repr(function))
        raise UsageError(f"{name} cannot be counted before it runs; {names} can")
    return planned(opened(*args, **given))


def planned(tracing: Tracing) -> StudyPlan:
    """Count what a tracing will take."""
    of, seeds = tracing.experiment, tracing.experiment.seeds
    guidance = Sampling(guidance=of.settings["guidance"]).guided(of.model)
    branches, steps = of.model.branch_names(guidance), len(of.model.steps(of.settings["steps"]))
    rows, runs, pictures, most, files, stored = 0, 0, 0, 1, 0, 0
    for p in range(len(of.clean)):
        restored = (tracing.counted or tracing.restore)(p, seeds[0])
        swept = of.runs(p, seeds[0], restored)
        plain, changed = partition(swept, of.settings["batch"], branches)
        batches: list[PlainBatch | ChangedBatch] = [*plain, *changed]
        rows += restored.rows + sum(one.rows(len(branches), steps) for one in batches)
        different = len({key_of(run) for run in swept})
        runs += different + restored.rows // of.rows_per_run
        pictures += different + (restored.clean is not None)
        most = max(most, *(one.samples for one in batches))
        made, kept = on_disk(of.model, batches)
        files, stored = files + made, stored + kept
    return StudyPlan(
        what=tracing.recipe["study"],
        units=len(of.clean) * len(seeds),
        runs=runs * len(seeds),
        rows=rows * len(seeds),
        exact=every_branch(guidance) and of.model.device.type != "meta",
        reference_rows=tracing.reference_rows,
        samples=most,
        kept=tracing.kept,
        files=files * len(seeds),
        stored=stored * len(seeds),
        pictures=pictures * len(seeds) if getattr(of.metric, "looks", True) else 0,
    )  # fmt: skip


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


@checked
def seconds_per_picture(model: Model, *, samples: int = 16) -> float:
    """Measure how long this machine takes to decode one picture, in batches of so many.

    Args:
        model: an opened model.
        samples: in one batch.

    Raises:
        ValueError: for no samples, and for more than anybody has memory for.
    """
    if not 1 <= samples <= MOST:
        raise UsageError(f"samples is {samples}; give 1 to {MOST}")
    latents, took = model.noise(range(samples)), []
    with torch.no_grad():
        for _ in range(2):  # the first one warms up
            start = _finished(model)
            model.decode(latents)
            took.append(_finished(model) - start)
    return min(took) / samples


def _finished(model: Model) -> float:
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    return time.perf_counter()
