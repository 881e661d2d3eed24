"""Schedulers: private copies, the noise levels of their steps, shifts of flow matching."""

from __future__ import annotations

import math
import warnings

import diffusers
import pytest
import torch

from denoscope.models.run.schedule import (
    Schedule,
    begin,
    copied,
    flow_shift,
    n_steps,
    noise_level,
    step_kwargs,
)
from tests.models.families.test_families import opened

CPU = torch.device("cpu")


def begun(tiny, name, steps=5, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        own = getattr(diffusers, name).from_config(tiny.scheduler.config, **options)
        return begin(own, Schedule(steps), CPU)


@pytest.mark.parametrize("name", ["KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler"])
def test_between_trained_times_the_logarithm_of_the_noise_is_a_line(tiny, name):
    scheduler = begun(tiny, name)
    times = scheduler.timesteps.tolist()
    assert not all(t.is_integer() for t in times)
    for i, t in enumerate(times):
        assert noise_level(scheduler, i) == pytest.approx(tiny.step_at(t=t).sigma, rel=1e-5)


def test_a_run_of_flow_matching_begins_with_all_noise():
    steps = opened("sd3").steps(3)
    assert steps[0].sigma == math.inf and all(math.isfinite(s.sigma) for s in steps[1:])
    for step in steps[1:]:
        assert step.sigma == pytest.approx(step.t / (1000 - step.t), rel=1e-4)


def test_steps_are_counted_where_they_are_called_several_times_or_of_ones_own(tiny):
    heun = begun(tiny, "HeunDiscreteScheduler")
    assert n_steps(heun) == 5 and len(heun.timesteps) == 9
    own = diffusers.DDPMScheduler.from_config(tiny.scheduler.config)
    assert n_steps(begin(own, Schedule(timesteps=(900, 40)), CPU)) == 2


def test_a_wrapped_scheduler_is_unwrapped_in_the_copy(tiny):
    own = diffusers.DDIMScheduler.from_config(tiny.scheduler.config)
    own.step = own.set_timesteps = lambda *_, **__: pytest.fail("the original was called")
    run = begin(own, Schedule(5), CPU)
    assert "step" in vars(own) and "step" not in vars(run) and len(run.timesteps) == 5


def test_memory_of_a_copy_is_its_own(tiny):
    scheduler = begun(tiny, "PNDMScheduler")
    scheduler.ets = [torch.ones(1), torch.ones(1)]
    scheduler.cur_sample = torch.ones(1)
    twin = copied(scheduler)
    twin.ets[0] += 1
    twin.ets.append(0)
    twin.cur_sample += 1
    assert scheduler.ets == [1, 1] and scheduler.cur_sample == 1 and twin.timesteps is not scheduler.timesteps


def test_steps_are_given_what_they_take(tiny):
    generators = [torch.Generator(), torch.Generator()]
    found = {n: step_kwargs(begun(tiny, f"{n}Scheduler"), generators, 0.3) for n in ("DDIM", "DDPM", "PNDM")}
    assert found == {
        "DDIM": {"generator": generators, "eta": 0.3},
        "DDPM": {"generator": generators},
        "PNDM": {},
    }


def test_the_shift_is_a_line_over_the_number_of_tokens():
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(
        base_image_seq_len=100, max_image_seq_len=300, base_shift=0.5, max_shift=1.5
    )
    assert [flow_shift(scheduler, n, 9.0) for n in (100, 200, 300)] == pytest.approx([0.5, 1.0, 1.5])
    assert flow_shift(opened("flux-dev").scheduler, 256, 1.16) == pytest.approx(0.5)
