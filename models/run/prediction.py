"""One conversion between the things a network may predict: clean latents, noise, velocity."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ..errors import UsageError
from .levels import Step
from .schedule import is_flow

Steps: TypeAlias = Step | Sequence[Step]
KINDS = ("epsilon", "sample", "v_prediction")
"""What a network may predict, as schedulers call it; in flow matching it is eps - x_0 always."""


def scales(scheduler: Any, step: Steps, x: Tensor) -> tuple[Any, Any]:
    """Return a and s of ``x_t = a x_0 + s eps``: a² + s² = 1, or a + s = 1 in flow matching.

    Numbers for one step; for one step a row, tensors that broadcast over x [row, ...].
    """
    if isinstance(step, Step):
        if math.isinf(step.sigma):  # zero terminal SNR
            return 0.0, 1.0
        a = 1 / (1 + step.sigma) if is_flow(scheduler) else 1 / math.sqrt(1 + step.sigma**2)
        return (a, 1 - a) if is_flow(scheduler) else (a, step.sigma * a)
    each = [scales(scheduler, s, x) for s in step]
    shape = (len(each), *[1] * (x.ndim - 1))
    a, s = torch.tensor(each, dtype=x.dtype, device=x.device).T
    return a.view(shape), s.view(shape)


def _check(model_input: Tensor, output: Tensor, step: Steps) -> None:
    """Raise UsageError if input, output and steps are not row by row of one another."""
    shapes, steps = (
        (tuple(model_input.shape), tuple(output.shape)),
        [step] if isinstance(step, Step) else step,
    )
    rows = shapes[0][:1] if model_input.ndim else ()
    if shapes[0] != shapes[1] or not rows or not (isinstance(step, Step) or (len(steps),) == rows):
        raise UsageError(
            f"input and output have shapes {shapes[0]} and {shapes[1]}, beside {len(steps)} steps; give "
            "[row, ...] of one shape, and one step for all rows or one a row"
        )


def to_x0(scheduler: Any, model_input: Tensor, output: Tensor, step: Steps) -> Tensor:
    """The clean latents implied by a network output.

    Raises:
        ValueError: for a kind of prediction that is not known, and for predicted noise where all is noise.
    """
    _check(model_input, output, step)
    a, s = scales(scheduler, step, model_input)
    kind = _kind(scheduler)
    clean: Tensor = output
    if kind == "flow":  # the output is eps - x_0
        clean = model_input - s * output
    if kind == "epsilon":
        if bool((torch.as_tensor(a) == 0).any()):
            raise UsageError(
                f"{type(scheduler).__name__} has prediction_type='epsilon', and at pure noise (sigma is inf) "
                "predicted noise implies no picture; take a later step, or a model of v_prediction"
            )
        clean = (model_input - s * output) / a
    if kind == "v_prediction":
        clean = a * model_input - s * output
    return clean


def to_eps(scheduler: Any, model_input: Tensor, output: Tensor, step: Steps) -> Tensor:
    """The noise implied by a network output.

    Raises:
        ValueError: for a kind of prediction that is not known, and for a predicted picture without noise.
    """
    _check(model_input, output, step)
    kind = _kind(scheduler)
    if kind == "epsilon":
        return output
    a, s = scales(scheduler, step, model_input)
    if bool((torch.as_tensor(s) == 0).any()):  # no noise is left, and what follows would divide by it
        if kind == "sample":
            raise UsageError(
                f"{type(scheduler).__name__} has prediction_type='sample', and where there is no noise "
                "(sigma is 0) a predicted picture implies none; take an earlier step"
            )
        limit: Tensor = model_input + a * output if kind == "flow" else s * model_input + a * output
        return limit
    noise: Tensor = (model_input - a * to_x0(scheduler, model_input, output, step)) / s
    return noise


def to_v(scheduler: Any, model_input: Tensor, output: Tensor, step: Steps) -> Tensor:
    """The velocity ``a eps - s x_0`` implied by a network output (Salimans & Ho 2022)."""
    x0 = to_x0(scheduler, model_input, output, step)
    a, s = scales(scheduler, step, model_input)
    velocity: Tensor = a * to_eps(scheduler, model_input, output, step) - s * x0
    return velocity


def change_of_output(scheduler: Any, change: Tensor, step: Steps) -> Tensor:
    """Return how much an output changes if the clean latents that it implies change by so much.

    Raises:
        ValueError: where all is noise or none is, and the output cannot say it.
    """
    a, s = scales(scheduler, step, change)
    kind = _kind(scheduler)
    if kind == "sample":
        return change
    ends = (a, s) if kind == "epsilon" else (s,)
    if any(bool((torch.as_tensor(x) == 0).any()) for x in ends):
        raise UsageError(
            f"{type(scheduler).__name__} has prediction_type={kind!r}, and where all is noise or none is "
            "(sigma is inf or 0) no output moves the picture; leave that step out: steps=range(1, n)"
        )
    moved: Tensor = change * (-a / s if kind == "epsilon" else -1 / s)
    return moved


def _kind(scheduler: Any) -> str:
    if is_flow(scheduler):
        return "flow"
    kind = str(scheduler.config.prediction_type)
    if kind not in KINDS:
        raise UsageError(
            f"{type(scheduler).__name__} has prediction_type {kind!r}; known are {', '.join(KINDS)}"
        )
    return kind


def wanted(scheduler: Any, clean: Tensor, noise: Tensor, step: Steps) -> Tensor:
    """What a network is trained to say of ``a clean + s noise``: the noise, the picture, or a velocity."""
    a, s = scales(scheduler, step, clean)
    kind = _kind(scheduler)
    if kind == "sample":
        return clean
    velocity: Tensor = noise - clean if kind == "flow" else a * noise - s * clean
    return noise if kind == "epsilon" else velocity
