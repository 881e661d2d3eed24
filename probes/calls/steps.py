"""Which step of a schedule a call of the denoiser belongs to, asked of the scheduler in use."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ...models.places.account import AccountError
from ...models.undo import Undo


def place_of(scheduler: Any, told: Tensor, scale: float, after: int | None = None) -> int:
    """Return which of a scheduler's timesteps the network is told.

    Args:
        scheduler: the one in use.
        told: the time that the network is told.
        scale: how many of the scheduler's times are one of it.
        after: the place of the step before, where it is known: some schedulers have a time twice.

    Raises:
        RuntimeError: an AccountError for a time that the scheduler does not have, or has twice.
    """
    t = float(told) * scale
    exact = torch.finfo(told.dtype).eps if told.is_floating_point() else 0.0
    gaps = (torch.as_tensor(scheduler.timesteps).detach().cpu().double() - t).abs()
    close = (gaps <= abs(t) * (exact + 1e-5) + 1e-6).nonzero().flatten().tolist()
    name = type(scheduler).__name__
    if not close:
        raise AccountError(
            f"the network is told the time {t:g}, which is none of {name}'s timesteps, so its step cannot be "
            "known; likely causes: another scheduler than pipe.scheduler steps, or set_timesteps was not run"
        )
    for asked in (getattr(scheduler, n, None) for n in ("step_index", "begin_index")):
        if asked is not None:
            if int(asked) in close:
                return int(asked)
            break
    nearest = [i for i in close if gaps[i] == gaps[close].min()]
    if len(nearest) > 1 and after is None:
        raise AccountError(f"{name} has the time {t:g} {len(nearest)} times, so the step cannot be known")
    later = [i for i in nearest if after is None or i > after]
    return int(later[0] if later else nearest[-1])


def stepping(
    scheduler: Any,
    after: Callable[[Tensor], None],
    undo: Undo,
    before: Callable[[Any, Mapping[str, Any]], Tensor] | None = None,
) -> None:
    """Hand over the latents after each step of a scheduler, until that is put back.

    Args:
        scheduler: whose.
        after: gets the latents.
        undo: puts the scheduler back.
        before: gets the scheduler and the step's arguments; returns what to give as ``model_output``.
    """
    method = scheduler.step
    signature = inspect.signature(method)

    @functools.wraps(method)  # pipelines look at the signature
    def step(*args: Any, **kwargs: Any) -> Any:
        if before is not None:
            given = signature.bind(*args, **kwargs)
            given.arguments["model_output"] = before(scheduler, given.arguments)
            args, kwargs = given.args, given.kwargs
        result = method(*args, **kwargs)
        after(result[0])
        return result

    if "step" in vars(scheduler):
        undo.add(functools.partial(setattr, scheduler, "step", method))
    else:
        undo.add(functools.partial(vars(scheduler).pop, "step", None))
    scheduler.step = step
