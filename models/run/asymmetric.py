"""DDIM's step with two outputs: one for the clean picture it points to, one for the direction back to x_t."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..errors import UsageError


def asymmetric_step(scheduler: Any, output: Tensor, direction: Tensor, t: Tensor, x: Tensor) -> Tensor:
    """Return ``sqrt(a) x_0(output) + sqrt(1 - a) eps(direction)``, a at the next time.

    Asymmetric reverse process: Kwon et al. 2023, eq. 6.

    Equal outputs give the scheduler's own step to the bit.

    Raises:
        ValueError: for another scheduler than DDIM's, whose step has no such two terms.
    """
    if type(scheduler).__name__ != "DDIMScheduler":
        raise UsageError(
            f"this guidance gives an output for the direction alone, a term that {type(scheduler).__name__} "
            "has not; use pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config)"
        )
    clean = scheduler.step(output, t, x).pred_original_sample
    back = int(t) - scheduler.config.num_train_timesteps // scheduler.num_inference_steps
    here = scheduler.alphas_cumprod[int(t)]
    there = scheduler.alphas_cumprod[back] if back >= 0 else scheduler.final_alpha_cumprod
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        eps = direction
    elif kind == "sample":
        eps = (x - here ** (0.5) * direction) / (1 - here) ** (0.5)
    else:
        eps = (here**0.5) * direction + ((1 - here) ** 0.5) * x
    towards = (1 - there - 0.0**2) ** (0.5) * eps
    new: Tensor = there ** (0.5) * clean + towards
    return new
