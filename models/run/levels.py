"""Noise levels and times: a step of sampling, the levels a network was trained on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ..arguments import check_fields
from ..errors import UsageError
from .schedule import is_flow, near, noise_level

OUTSIDE = -1
"""Index of a Step that is no position in a run."""
TOLERANCE = 0.1
"""How far the logarithm of a Step's noise level may lie from that of its time; schedulers round times."""
SHARE = 0.01
"""The same in flow matching, as a share of noise."""


@dataclass(frozen=True)
class Step:
    """One call of the denoiser: its position in a run, its time and its noise level.

    Args:
        index: position in the run; 0 is the noisiest, -1 means outside a run.
        t: the scheduler's time, which the network is told.
        sigma: noise level ``s_t / a_t`` of ``x_t = a_t x_0 + s_t eps``, comparable across schedulers.

    With a scheduler that calls the network more than once per step (Heun, KDPM2, PNDM), each call is a Step.
    """

    index: int
    t: float
    sigma: float

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def log_snr(self) -> float:
        """Log signal-to-noise ratio, ``log(a_t² / s_t²)``; -inf for pure noise."""
        if self.sigma == 0:
            return math.inf
        return -math.inf if math.isinf(self.sigma) else -2 * math.log(self.sigma)


def steps_of(scheduler: Any) -> list[Step]:
    """Return the steps of a begun scheduler: one for each call of the network."""
    there = near(scheduler)
    return [Step(i, float(t), noise_level(there, i)) for i, t in enumerate(there.timesteps)]


def trained_levels(scheduler: Any) -> list[Step]:
    """Return the noise levels that a network with this scheduler was trained on, noisiest first."""
    times, logs = _table(_key(scheduler))
    return [Step(OUTSIDE, float(t), math.exp(s)) for t, s in zip(times[::-1], logs[::-1], strict=True)]


def step_at(
    scheduler: Any, *, log_snr: float | None = None, sigma: float | None = None, t: float | None = None
) -> Step:
    """Return the Step at a noise level or a time; between trained levels log sigma is interpolated over time.

    Args:
        scheduler: of the pipeline.
        log_snr: log signal-to-noise ratio.
        sigma: noise level ``s / a``.
        t: the scheduler's time.

    Raises:
        ValueError: unless exactly one is given, and for levels beyond the trained ones.
    """
    given = {k: v for k, v in (("log_snr", log_snr), ("sigma", sigma), ("t", t)) if v is not None}
    if len(given) != 1:
        raise UsageError(f"a step is one of log_snr, sigma or t; got {given or 'none of them'}")
    if is_flow(scheduler):
        return _flow_step(int(scheduler.config.num_train_timesteps), log_snr, sigma, t)
    times, logs = _table(_key(scheduler))
    if t is not None:
        _inside("t", t, times[0], times[-1])
        return Step(OUTSIDE, float(t), math.exp(float(np.interp(t, times, logs))))
    if sigma is not None and sigma < 0:
        raise UsageError(f"sigma is {sigma:g}; a noise level is a number from 0 up")
    level = -0.5 * log_snr if log_snr is not None else math.log(sigma) if sigma else -math.inf
    if log_snr is not None:
        _inside("log_snr", log_snr, -2 * logs[-1], -2 * logs[0])
    else:
        _inside("sigma", sigma or 0.0, math.exp(logs[0]), math.exp(logs[-1]))
    found = float(np.interp(level, logs, times))
    near = round(found)
    if abs(found - near) < 1e-3:  # a trained time, up to rounding; integers stay integers for the network
        found = float(near)
    return Step(OUTSIDE, found, math.exp(level))


def _flow_step(n: int, log_snr: float | None, sigma: float | None, t: float | None) -> Step:
    """Flow matching: the share of noise is ``t / n``, at every level between none and all."""
    if t is not None:
        _inside("t", t, 0, n)
        return Step(OUTSIDE, float(t), t / (n - t) if t < n else math.inf)
    level = math.exp(-0.5 * log_snr) if log_snr is not None else float(sigma or 0.0)
    if level < 0:
        raise UsageError(f"sigma is {level:g}; a noise level is a number from 0 up")
    return Step(OUTSIDE, float(n) if math.isinf(level) else n * level / (1 + level), level)


def check_step(scheduler: Any, step: Step) -> None:
    """Raise ValueError if a Step's noise level is not that of its time: the network would be misled."""
    if tells_levels(scheduler):
        return  # its times are levels
    if is_flow(scheduler):  # the share of noise, whose level has no end
        there = step_at(scheduler, t=step.t)
        wrong = abs(_share(there) - _share(step)) > SHARE
    else:
        times, logs = _table(_key(scheduler))
        if not times[0] <= step.t <= times[-1]:
            return  # beyond the table: pure noise
        there = Step(OUTSIDE, step.t, math.exp(float(np.interp(step.t, times, logs))))
        wrong = abs(there.log_snr - step.log_snr) > 2 * TOLERANCE
    if wrong:
        raise UsageError(
            f"{step} contradicts itself: at t = {step.t:g} the noise level is {there.sigma:.4g}; "
            f"make steps by model.steps(n) or model.step_at(sigma={step.sigma:g})"
        )


def tells_levels(scheduler: Any) -> bool:
    """Return whether the network is told ``log(sigma) / 4`` in place of a time (Karras et al. 2022)."""
    return bool(scheduler.config.get("timestep_type") == "continuous")


def _share(step: Step) -> float:
    return 1.0 if math.isinf(step.sigma) else step.sigma / (1 + step.sigma)


def _inside(name: str, value: float, low: float, high: float) -> None:
    slack = 1e-6 * (1 + abs(value))
    if not low - slack <= value <= high + slack:
        raise UsageError(f"{name} is {value:g}; the model was trained from {low:.4g} to {high:.4g}")


def _key(scheduler: Any) -> tuple[bool, int, tuple[float, ...]]:
    n = int(scheduler.config.num_train_timesteps)
    if is_flow(scheduler):
        return True, n, ()
    if tells_levels(scheduler):
        raise UsageError(
            f"{type(scheduler).__name__} has timestep_type='continuous': it tells the network the log of "
            "the noise level in place of a time, and trained levels have none; take steps of model.steps(n)"
        )
    return False, n, tuple(scheduler.alphas_cumprod.double().tolist())


@lru_cache(maxsize=16)
def _table(key: tuple[bool, int, tuple[float, ...]]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Times, rising, and log sigma there."""
    flow, n, alphas = key
    if flow:  # t / n is the share of noise; all noise has no level
        times = np.arange(1, n, dtype=float)
        return times, np.log(times / (n - times))
    a = np.array(alphas)
    kept = (a > 0) & (a < 1)
    return np.arange(n, dtype=float)[kept], 0.5 * np.log((1 - a[kept]) / a[kept])
