"""Schedulers: begin a run, tell the noise level, take rows out of a scheduler's memory.

A run works on a private copy, so that the pipeline's own scheduler is never changed and two runs can
be interleaved. Schedulers that call the network several times per step (Heun, KDPM2, PNDM) work: each call is
a Step. Stochastic ones draw from each sample's own generator, so a batch still equals its parts.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import UsageError
from .tables import indices

# Their noise does not come from the generators they are given, or their step needs more than a sample.
REFUSED = {
    "DPMSolverSDEScheduler": "draws from one Brownian path for the whole batch",
    "CosineDPMSolverMultistepScheduler": "draws from one Brownian path for the whole batch",
    "EDMEulerScheduler": "rescales the network's output itself",
    "EDMDPMSolverMultistepScheduler": "rescales the network's output itself",
    "IPNDMScheduler": "does not follow x_t = a x_0 + s eps",
    "KarrasVeScheduler": "has a step of its own",
    "ScoreSdeVeScheduler": "has a step of its own",
}


UNSCALED: dict[str, dict[str, Any]] = {
    "DDIMScheduler": {},
    "DPMSolverMultistepScheduler": {},
    "UniPCMultistepScheduler": {},
}
"""Schedulers for pipelines that do not scale the starting noise, as Euler's method would ask."""


@dataclass(frozen=True)
class Schedule:
    """When the network is called: so many steps, or times or noise levels of one's own.

    Args:
        steps: how many; None is what the own times or levels make, and else it must agree with them.
        timesteps: times, falling, in place of the scheduler's spacing.
        sigmas: noise levels, falling, in the scheduler's own terms: flow matching and UniPC take one a step,
            Euler's method also the one to end at.

    Raises:
        ValueError: for values that cannot be, or contradict each other.
    """

    steps: int | None = None
    timesteps: tuple[float, ...] | None = None
    sigmas: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.steps is not None and self.steps < 1:
            raise UsageError(f"steps is {self.steps}; a run needs at least 1")
        if self.timesteps is not None and self.sigmas is not None:
            raise UsageError("timesteps and sigmas are both given; one follows from the other: give one")
        for name, values in self.own.items():
            falling = all(a > b for a, b in zip(values, values[1:], strict=False))
            if not values or not falling or not all(0 <= v < math.inf for v in values):
                raise UsageError(f"{name} is {values}; it holds numbers from 0 up, each below the one before")

    @property
    def own(self) -> dict[str, list[float]]:
        """What takes the place of the scheduler's spacing."""
        given = {"timesteps": self.timesteps, "sigmas": self.sigmas}
        return {name: list(values) for name, values in given.items() if values is not None}


def check_scheduler(scheduler: Any) -> None:
    """Raise ValueError if a run with this scheduler would not equal its pipeline's."""
    name = type(scheduler).__name__
    if name in REFUSED:
        raise UsageError(
            f"{name} is not supported: it {REFUSED[name]}. Use for example "
            "pipe.scheduler = diffusers.DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)"
        )


def begin(scheduler: Any, schedule: Schedule, device: torch.device, **options: Any) -> Any:
    """Return a copy of the scheduler, set to a run; ``options`` go to ``set_timesteps``.

    Raises:
        ValueError: for more steps than it was trained on, for own times or levels that it does not take, and
            for a number of steps that they do not make.
    """
    check_scheduler(scheduler)
    scheduler = copy.deepcopy(scheduler)
    for name in ("step", "set_timesteps"):  # methods that somebody wrapped would still act on the original
        vars(scheduler).pop(name, None)
    limit, n = scheduler.config.num_train_timesteps, schedule.steps
    if n is not None and n > limit:
        raise UsageError(f"steps is {n}; {type(scheduler).__name__} was trained on {limit}")
    _check_own(scheduler, schedule)
    own: dict[str, Any] = dict(schedule.own)
    if not own and "sigmas" not in options:  # a family may fix levels
        own = {"num_inference_steps": n}
    there = torch.device("cpu") if device.type == "meta" else device  # times and levels have values
    scheduler.set_timesteps(**{**options, **own}, device=there)
    made = n_steps(scheduler)
    if n is not None and schedule.own and made != n:
        raise UsageError(f"steps is {n}, but {', '.join(schedule.own)} make {made}; leave steps out")
    return scheduler


def n_steps(scheduler: Any) -> int:
    """Return the number of steps of a begun scheduler; some call the network several times in one."""
    return int(scheduler.num_inference_steps or len(scheduler.timesteps))  # DDPM does not count own times


def _check_own(scheduler: Any, schedule: Schedule) -> None:
    """Raise ValueError for times or levels that a scheduler does not take."""
    name, limit = type(scheduler).__name__, scheduler.config.num_train_timesteps
    for given, values in schedule.own.items():
        takes = inspect.signature(scheduler.set_timesteps).parameters
        if given not in takes or (given == "timesteps" and "FlowMatch" in name):
            other = [o for o in ("timesteps", "sigmas") if o != given and o in takes]
            fix = f"give {other[0]}" if other else "leave it out, or take another scheduler"
            raise UsageError(f"{name} takes no {given} of one's own, but got {values}; {fix}")
        if given == "timesteps" and values[0] > limit - 1:
            raise UsageError(f"timesteps begin at {values[0]}; {name} was trained on 0 to {limit - 1}")


def is_flow(scheduler: Any) -> bool:
    """Return whether noise is mixed in as ``x_t = (1 - sigma) x_0 + sigma eps`` (flow matching)."""
    config = scheduler.config
    return "FlowMatch" in type(scheduler).__name__ or bool(config.get("use_flow_sigmas"))


def flow_shift(scheduler: Any, tokens: int, most: float) -> float:
    """Return how far noise levels shift for a picture of so many tokens (Esser et al. 2024, section 5.3.2).

    Args:
        scheduler: its configuration may say where the line starts and ends.
        tokens: of the picture.
        most: the largest shift, where the configuration does not say it.
    """
    config = scheduler.config
    few, many = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    base, top = config.get("base_shift", 0.5), config.get("max_shift", most)
    slope = (top - base) / (many - few)
    return float(tokens * slope + (base - slope * few))


def scaled(scheduler: Any, x: Tensor, t: Tensor) -> Tensor:
    """Return latents as the network is to see them; flow matching shows them as they are."""
    if not hasattr(scheduler, "scale_model_input"):
        return x
    model_input: Tensor = scheduler.scale_model_input(x, t)
    return model_input


def near(scheduler: Any) -> Any:
    """Return a copy whose times and levels lie in main memory: a GPU waits for each that is read there."""
    twin = copy.copy(scheduler)
    for name in ("timesteps", "sigmas", "alphas_cumprod"):
        if isinstance(value := vars(twin).get(name), Tensor):
            setattr(twin, name, value.cpu())
    return twin


def noise_level(scheduler: Any, index: int) -> float:
    """Return s_t / a_t of ``x_t = a_t x_0 + s_t eps`` before step ``index`` of a begun scheduler."""
    sigmas = getattr(scheduler, "sigmas", None)
    if sigmas is not None and len(sigmas) == len(scheduler.timesteps) + 1:
        sigma = float(sigmas[index])
        if is_flow(scheduler):
            return sigma / (1 - sigma) if sigma < 1 else math.inf
        return sigma
    t = float(scheduler.timesteps[index])
    below = _trained_level(scheduler, math.floor(t))
    if t.is_integer():
        return below
    above = _trained_level(scheduler, math.ceil(t))  # between times, the logarithm is a line (KDPM2)
    return float(below * (above / below) ** (t - math.floor(t)))


def _trained_level(scheduler: Any, t: int) -> float:
    alpha = float(scheduler.alphas_cumprod[t])
    return float(((1 - alpha) / alpha) ** 0.5) if alpha else math.inf  # pure noise: zero terminal SNR


def step_kwargs(scheduler: Any, generators: Sequence[torch.Generator], eta: float = 0.0) -> dict[str, Any]:
    """Return what ``scheduler.step`` needs beyond output, time and sample, as the pipelines give it."""
    accepts = inspect.signature(scheduler.step).parameters
    given = {"generator": list(generators), "eta": eta}
    return {name: value for name, value in given.items() if name in accepts}


def check_eta(scheduler: Any, eta: float) -> None:
    """Raise ValueError for an eta that a scheduler does not take."""
    if eta and "eta" not in inspect.signature(type(scheduler).step).parameters:
        raise UsageError(f"eta is {eta}, but {type(scheduler).__name__} takes none; leave it out")


def copied(scheduler: Any) -> Any:
    """Return a copy whose memory of earlier steps is its own; gradients still flow into it."""

    def own(value: Any) -> Any:
        if isinstance(value, list):
            return [own(v) for v in value]
        return value.clone() if isinstance(value, Tensor) else value  # PNDM adds in place

    twin = copy.copy(scheduler)
    for name, value in vars(scheduler).items():
        setattr(twin, name, own(value))
    return twin


def scheduler_rows(scheduler: Any, rows: Sequence[int], shape: Sequence[int]) -> Any:
    """Return a copy whose memory of earlier steps holds only some samples."""
    return _with_memory([(scheduler, shape)], lambda parts: parts[0][indices(list(rows), parts[0].device)])


def scheduler_join(parts: Sequence[tuple[Any, Sequence[int]]]) -> Any:
    """Return a copy whose memory holds the samples of several (scheduler, shape of latents)."""
    return _with_memory(parts, torch.cat)


def _with_memory(
    parts: Sequence[tuple[Any, Sequence[int]]], combine: Callable[[list[Tensor]], Tensor]
) -> Any:
    """Copy a scheduler; what multistep schedulers remember are the tensors shaped like the latents."""

    def walk(values: list[Any]) -> Any:
        if isinstance(values[0], list):
            return [walk(list(v)) for v in zip(*values, strict=True)]
        remembered = all(
            isinstance(v, Tensor) and v.shape == torch.Size(shape)
            for v, (_, shape) in zip(values, parts, strict=True)
        )
        return combine(values) if remembered else values[0]

    joined = copy.copy(parts[0][0])
    for name in vars(joined):
        setattr(joined, name, walk([vars(scheduler)[name] for scheduler, _ in parts]))
    return joined


def remembers(scheduler: Any, shape: Sequence[int]) -> bool:
    """Return whether a scheduler carries something of such latents from the steps that it has made."""

    def held(value: Any) -> bool:
        if isinstance(value, list):
            return any(map(held, value))
        return isinstance(value, Tensor) and value.shape == torch.Size(shape)

    return any(map(held, vars(scheduler).values()))
