"""From a real picture back to the noise that it would be painted from: DDIM inversion, Euler inversion."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..models.arguments import checked
from ..models.base import Model, Prompt, SamplerState
from ..models.errors import UsageError
from ..models.guidance.value import Guidance
from ..models.progress import Progress, showing
from ..models.run.levels import OUTSIDE, Step
from ..models.run.noising import in_own_scale
from ..models.run.prediction import scales, to_eps
from ..models.run.schedule import Schedule, is_flow

STOCHASTIC = (
    "DDPMScheduler",
    "DDPMParallelScheduler",
    "EulerAncestralDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "SASolverScheduler",
    "LCMScheduler",
    "TCDScheduler",
    "FlowMatchLCMScheduler",
)
"""Schedulers that draw noise at every step, so that no start leads to a given picture."""


@checked
def invert(
    model: Model,
    images: Float[Tensor, "sample ..."],
    prompts: Sequence[str | Prompt],
    *,
    steps: int,
    guidance: float | Guidance = 1.0,
    progress: Progress | None = None,
) -> SamplerState:
    """Return the start of a run that leads back to given pictures, for ``model.sample(start=...)``.

    Each step is undone with what the network says one step too early, told the step's own time: DDIM
    inversion (Song et al. 2021, section 4.3; Mokady et al. 2023, section 3.1), in flow matching Euler's
    method backwards. So the way back is not exact: the error falls with the number of steps, and grows with
    guidance.

    Args:
        model: an opened model with a deterministic scheduler.
        images: [sample, channel, height, width] in 0..1, encoded by ``model.encode_image``.
        prompts: what each picture shows; the same that the run on from there reads.
        steps: of the whole run.
        guidance: a scale or a Guidance; above 1 the inversion is rarely close. Models that are told their
            guidance are told this one.
        progress: called with (done, total, what); without it a bar comes by itself.

    Raises:
        ValueError: for stochastic schedulers, those that clip what they predict, and pictures or prompts that
            do not fit.
    """
    latents = model.encode_image(images)
    return invert_latents(model, latents, prompts, steps=steps, guidance=guidance, progress=progress)


@torch.no_grad()
def invert_latents(
    model: Model,
    latents: Float[Tensor, "sample ..."],
    prompts: Sequence[str | Prompt],
    *,
    steps: int,
    guidance: float | Guidance = 1.0,
    progress: Progress | None = None,
) -> SamplerState:
    """Return the start of a run that leads back to clean latents [sample, ...]; see ``invert``."""
    _check(model, latents, prompts)
    scheduler = model._begin(Schedule(steps))
    x, read = latents.to(model.device, model.dtype), model.prompts(prompts)
    made = _undone(model, scheduler, steps)
    with showing(progress) as show:
        for done, (step, after) in enumerate(reversed(made), 1):
            output = model.denoise(x, step, read, guidance=guidance)
            x = _backwards(scheduler, x, output, step, after)
            show(done, len(made), "inverting")
    start = model.start(range(len(x)), steps)
    return replace(start, latents=in_own_scale(scheduler, x, made[0][0]).to(start.latents.dtype))


def _check(model: Model, latents: Tensor, prompts: Sequence[str | Prompt]) -> None:
    scheduler = model.scheduler
    name, config = type(scheduler).__name__, scheduler.config
    if name in STOCHASTIC or "sde" in str(config.get("algorithm_type")) or config.get("stochastic_sampling"):
        raise UsageError(
            f"{name} draws noise at every step, so no start leads back to a picture; use for example "
            "pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config)"
        )
    for option in ("clip_sample", "thresholding"):
        if config.get(option):
            raise UsageError(
                f"{name} has {option}=True, and what it clips cannot be undone; use "
                f"pipe.scheduler = diffusers.{name}.from_config(pipe.scheduler.config, {option}=False)"
            )
    if tuple(latents.shape[1:]) != tuple(model.latent_shape):
        shape = ", ".join(map(str, model.latent_shape))
        raise UsageError(
            f"latents are {tuple(latents.shape)}; {model.name} has [sample, {shape}]"
            " (model.encode_image makes them of pictures)"
        )
    if isinstance(prompts, str) or len(prompts) != len(latents):
        raise UsageError(f"{len(latents)} pictures, but prompts are {prompts!r}; give one for each")


def _undone(model: Model, scheduler: Any, steps: int) -> list[tuple[Step, Step]]:
    """The steps to be undone, noisiest first, each with the level that it leads to.

    Second calls at one level (Heun, PNDM) are left out.
    """
    every = model.steps(steps)
    run = [s for i, s in enumerate(every) if not i or s.sigma < every[i - 1].sigma]
    after = [*run[1:], Step(OUTSIDE, 0.0, _end(scheduler))]
    if type(scheduler).__name__ in (
        "DDIMScheduler",
        "DDIMParallelScheduler",
    ):  # it goes by the time, not to the next step's level
        stride = scheduler.config.num_train_timesteps // scheduler.num_inference_steps
        after = [Step(OUTSIDE, s.t - stride, _ddim_level(scheduler, int(s.t) - stride)) for s in run]
    return list(zip(run, after, strict=True))


def _end(scheduler: Any) -> float:
    """Noise level of what a run ends with."""
    if (sigmas := getattr(scheduler, "sigmas", None)) is None or len(sigmas) <= len(scheduler.timesteps):
        return _ddim_level(scheduler, -1)
    last = float(sigmas[-1])
    return last / (1 - last) if is_flow(scheduler) else last


def _ddim_level(scheduler: Any, t: int) -> float:
    alpha = float(scheduler.alphas_cumprod[t] if t >= 0 else scheduler.final_alpha_cumprod)
    return math.sqrt((1 - alpha) / alpha)


def _backwards(scheduler: Any, x: Tensor, output: Tensor, step: Step, after: Step) -> Tensor:
    """Undo one step: solve it for the noisier latents, as if the output were the same there.

    Of a predicted picture it is the noise that is taken to be the same: the step's noise levels turn one into
    the other, as in diffusers' DDIMInverseScheduler.
    """
    (a, s), (a_after, s_after) = scales(scheduler, step, x), scales(scheduler, after, x)
    if is_flow(scheduler):
        made = x + (s - s_after) * output
    elif scheduler.config.prediction_type == "v_prediction":  # a turn by an angle, of latents and velocity
        made = (x + (s * a_after - a * s_after) * output) / (a * a_after + s * s_after)
    else:
        eps = output if scheduler.config.prediction_type == "epsilon" else to_eps(scheduler, x, output, step)
        made = a / a_after * x + (s - a * s_after / a_after) * eps
    return made.to(x.dtype)  # type: ignore[no-any-return]
