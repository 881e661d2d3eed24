"""Which step a call belongs to: asked of the scheduler; times that stand twice are told apart or refused."""

from types import SimpleNamespace

import diffusers
import pytest
import torch

from denoscope.models.places.account import AccountError
from denoscope.probes.calls.steps import place_of


def begun(kind, n=4, **options):
    scheduler = getattr(diffusers, f"{kind}Scheduler")(**options)
    scheduler.set_timesteps(n)
    return scheduler


@pytest.mark.parametrize("kind", ["DDIM", "EulerDiscrete", "DPMSolverMultistep", "FlowMatchEulerDiscrete"])
def test_each_time_is_at_its_place(kind):
    scheduler = begun(kind)
    assert [place_of(scheduler, t, 1.0) for t in scheduler.timesteps] == [0, 1, 2, 3]
    assert [place_of(scheduler, t / 1000, 1000.0) for t in scheduler.timesteps] == [0, 1, 2, 3]


def test_a_time_that_stands_twice_is_told_apart_by_the_scheduler_or_by_what_came_before():
    heun, pndm = begun("HeunDiscrete"), begun("PNDM", skip_prk_steps=True)
    twice = heun.timesteps[1]
    heun._step_index = 2
    assert place_of(heun, twice, 1.0) == 2
    heun._step_index, heun._begin_index = 1, 2
    assert place_of(heun, twice, 1.0) == 1
    heun._step_index = 0  # counts otherwise: where it began does not tell either
    with pytest.raises(AccountError, match="has the time .* 2 times"):
        place_of(heun, twice, 1.0)
    heun._step_index = None
    assert place_of(heun, twice, 1.0) == 2
    twice = pndm.timesteps[1]
    assert twice == pndm.timesteps[2]
    assert [place_of(pndm, twice, 1.0, after) for after in (0, 1)] == [1, 2]
    with pytest.raises(AccountError, match="PNDMScheduler has the time 500 2 times"):
        place_of(pndm, twice, 1.0)


def test_times_rounded_to_half_precision_are_those_of_the_steps_that_the_scheduler_counts():
    scheduler = begun("FlowMatchEulerDiscrete", 200)
    found = []
    for i, t in enumerate(scheduler.timesteps):
        scheduler._step_index = i
        found.append(place_of(scheduler, (t / 1000).to(torch.bfloat16), 1000.0))
    assert found == list(range(200))


def test_of_times_that_are_close_the_nearest_counts():
    """In bfloat16 all of 497 to 503 are close to 500."""
    scheduler = SimpleNamespace(timesteps=torch.tensor([501.0, 500.0, 499.0]))
    assert place_of(scheduler, torch.tensor(500.0, dtype=torch.bfloat16), 1.0) == 1


def test_another_time_is_refused():
    with pytest.raises(AccountError, match=r"time 17, which is none of DDIMScheduler's timesteps"):
        place_of(begun("DDIM"), torch.tensor(17), 1.0)
