"""Half-noised pictures: clean latents as a run would meet them at one of its steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..adapter import Adapter
from ..errors import UsageError
from .levels import Step
from .noise import generators
from .prediction import scales
from .schedule import Schedule, copied, is_flow, noise_level
from .state import SamplerState


def noised(scheduler: Any, clean: Tensor, noise: Tensor, step: Step) -> Tensor:
    """Return ``x_t`` of clean latents [sample, ...] at a step, in the scheduler's own scale.

    At steps of its own run this is ``add_noise`` of the scheduler (``scale_noise`` in flow matching) to the
    bit.

    Args:
        scheduler: begun, for steps of a run.
        clean: latents [sample, ...].
        noise: unit Gaussian, of the same shape.
        step: of the scheduler's run, or a level outside any run.
    """
    if step.index < 0:
        a, s = scales(scheduler, step, clean)
        return in_own_scale(scheduler, a * clean + s * noise, step)
    scheduler = copied(scheduler)
    begin_at(scheduler, step.index)
    times = scheduler.timesteps[step.index : step.index + 1].repeat(len(clean))
    if hasattr(scheduler, "scale_noise"):
        made: Tensor = scheduler.scale_noise(clean, times, noise)
    else:
        made = scheduler.add_noise(clean, noise, times)
    return made


def in_own_scale(scheduler: Any, x: Tensor, step: Step) -> Tensor:
    """Return ``x_t = a x_0 + s eps`` as a scheduler carries it: Euler's as ``x_0 + sigma eps``."""
    if is_flow(scheduler) or float(scheduler.init_noise_sigma) == 1:
        return x
    return x / scales(scheduler, step, x)[0]  # type: ignore[no-any-return]


def begin_at(scheduler: Any, index: int) -> None:
    """Tell a scheduler that its run starts at a later step; those that go by the time need not know."""
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(index)
        scheduler._step_index = None  # in the middle of a run it would count for more than where it began


def generators_of(seeds: Sequence[int], images: Tensor) -> list[torch.Generator]:
    """Return one noise source for each picture.

    Raises:
        ValueError: unless there is one seed for each.
    """
    if len(seeds) != len(images):
        raise UsageError(f"{len(images)} images but {len(seeds)} seeds; give one seed for each image")
    return generators(seeds)


def noised_start(
    model: Adapter, clean: Tensor, step: int | Step, generators: Sequence[torch.Generator], steps: int
) -> SamplerState:
    """Return the moment before a step of a run, with noised latents; see ``Model.start_at``."""
    scheduler = model._begin(Schedule(steps))
    index = _index(scheduler, step, steps)
    noise = model._draw(generators)
    t = float(scheduler.timesteps[index])
    latents = noised(scheduler, clean, noise, Step(index, t, noise_level(scheduler, index)))
    begin_at(scheduler, index)
    return SamplerState(index, latents, scheduler, tuple(g.get_state() for g in generators))


def _index(scheduler: Any, step: int | Step, steps: int) -> int:
    index, n = (step.index if isinstance(step, Step) else step), len(scheduler.timesteps)
    if not 0 <= index < n:
        raise UsageError(f"step is {step!r}; a run of {steps} steps has 0 (the noisiest) to {n - 1}")
    if isinstance(step, Step) and step.t != float(scheduler.timesteps[index]):
        raise UsageError(f"{step} is of another run; take one of model.steps({steps}), or its index")
    order = int(getattr(scheduler, "order", 1))
    if index % order:
        raise UsageError(
            f"{type(scheduler).__name__} calls the network {order} times a step, and call {index} is not the "
            f"first of its step; start at {index - index % order}"
        )
    return index
