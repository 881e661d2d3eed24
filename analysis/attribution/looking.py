"""Where maps come from: a run that is watched, or real pictures, noised and looked at in single calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ...models.base import Model, Prompt, State, check_run
from ...models.errors import UsageError
from ...models.progress import Progress, showing
from ...models.run.levels import Step
from ...models.run.prediction import scales
from ...models.run.sampling import Sampling
from ...models.store.provenance import provenance
from ...probes.intervene import Probe
from ...probes.trace import Trace, trace

MIDDLE = 0.0
"""Log-SNR at which real pictures are looked at, if nothing else is said: as much noise as picture."""


def run_or_calls(images: Tensor | None, **settings: Any) -> Sampling:
    """Return the settings of a run; beside pictures, which are looked at in single calls, there are none.

    Raises:
        ValueError: for settings that cannot be, and any beside pictures.
    """
    if images is None:
        return Sampling(**settings)
    given = [k for k, v in settings.items() if v not in (None, "")]
    if given:
        raise UsageError(
            f"{' and '.join(given)} are of a run, but pictures are looked at in single calls, at "
            "levels=[model.step_at(log_snr=0), ...]; leave them out"
        )
    return Sampling()


def plan_of(
    model: Model, how: Sampling, images: Tensor | None, levels: Sequence[Step] | None
) -> tuple[list[Step], tuple[str, ...]]:
    """Return the steps of a run, or the levels of pictures, numbered from 0, and the branches there.

    Raises:
        ValueError: for levels without pictures, and no levels.
    """
    if images is not None:
        return levels_of(model, levels), ("cond",)
    if levels is not None:
        raise UsageError("levels are those of real pictures; give images too, or leave levels out")
    return model.steps(how), model.branch_names(how.guidance)


def levels_of(model: Model, levels: Sequence[Step] | None) -> list[Step]:
    """Return noise levels as steps that are numbered from 0; by default the middle one alone."""
    given = [model.step_at(log_snr=MIDDLE)] if levels is None else list(levels)
    if not given:
        raise UsageError("levels is empty; give some: [model.step_at(log_snr=0)]")
    return [replace(step, index=i) for i, step in enumerate(given)]


def look(  # noqa: PLR0913  # one run, or pictures in its place
    model: Model,
    prompts: Sequence[str | Prompt],
    probes: Sequence[Probe],
    *,
    seeds: Sequence[int],
    how: Sampling,
    images: Float[Tensor, "sample ..."] | None = None,
    levels: Sequence[Step] | None = None,
    on_step: Callable[[State], None] | None = None,
    progress: Progress | None = None,
) -> Trace:
    """Let probes look at a run, or at pictures noised to some levels; return it without activations.

    A picture's noise is that of its seed, the same at all levels. The Trace of pictures has their clean
    latents, and the levels in place of steps.

    Raises:
        ValueError: unless there are as many prompts, seeds and pictures; and as ``trace``.
    """
    if images is None:
        return trace(
            model,
            prompts,
            seeds=seeds,
            interventions=probes,
            on_step=on_step,
            progress=progress,
            steps=how.steps,
            guidance=how.guidance,
            negative=how.negative,
        )
    check_run(len(prompts), seeds)
    if images.ndim < 1 or len(images) != len(seeds):
        raise UsageError(f"images has shape {tuple(images.shape)} for {len(seeds)} seeds; give one a seed")
    if on_step is not None:
        raise UsageError(
            "pictures are looked at in single calls, after which there is no state; leave on_step out"
        )
    plan = levels_of(model, levels)
    with torch.no_grad(), showing(progress) as show:
        clean, read = model.encode_image(images), model.prompts(prompts)
        noise = model.noise(seeds)
        for i, step in enumerate(plan):
            acting = [p for p in probes if step in p.when]
            if acting:
                a, s = scales(model.scheduler, step, clean)
                model.denoise(a * clean + s * noise, step, prompts, interventions=acting)
            show(i + 1, len(plan), "noise levels")
    about = provenance(model, levels=[s.log_snr for s in plan], seeds=list(seeds))
    return Trace({}, (), tuple(plan), tuple(read), tuple(seeds), clean, about, model.decode)
