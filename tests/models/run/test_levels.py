"""Noise levels: a Step and its log SNR say the same; a Step that contradicts itself is refused."""

from __future__ import annotations

import math

import diffusers
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from denoscope.models.load import load
from denoscope.models.run.levels import Step
from denoscope.models.synthetic.tiny import tiny_ddpm, tiny_sd
from tests.models.families.test_families import FAMILIES, opened

SCHEDULERS = ["DDIMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler", "PNDMScheduler"]


@pytest.mark.parametrize("name", FAMILIES)
def test_step_at_is_inverse_to_the_steps_own_level(name):
    model = opened(name)
    for step in model.steps(5):
        if math.isinf(step.sigma) or step.t > 999:
            continue
        by_level = model.step_at(log_snr=step.log_snr)
        assert by_level.log_snr == pytest.approx(step.log_snr, abs=1e-6)
        assert by_level.t == pytest.approx(step.t, abs=1.0)
        assert model.step_at(t=by_level.t).log_snr == pytest.approx(step.log_snr, abs=0.02)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_steps_of_a_run_lie_on_the_trained_levels(prediction, name):
    pipe = tiny_sd(prediction_type=prediction)
    pipe.scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config)
    model = load(pipe)
    for step in model.steps(7):
        if step.t <= 999:
            assert model.step_at(log_snr=step.log_snr).t == pytest.approx(step.t, abs=0.6)


@given(st.floats(-4.5, 6.0))
def test_sigma_log_snr_and_t_are_three_names_of_one_step(tiny, log_snr):
    step = tiny.step_at(log_snr=log_snr)
    assert step.log_snr == pytest.approx(log_snr)
    assert tiny.step_at(sigma=step.sigma).t == pytest.approx(step.t)
    assert tiny.step_at(t=step.t).sigma == pytest.approx(step.sigma, rel=1e-5)


def test_trained_levels_fall_and_know_their_times(tiny):
    levels = tiny.levels
    assert len(levels) == 1000 and [s.t for s in levels] == list(range(999, -1, -1))
    assert all(a.sigma > b.sigma for a, b in zip(levels, levels[1:], strict=False))
    alpha = float(tiny.scheduler.alphas_cumprod[500])
    assert levels[499].sigma == pytest.approx(((1 - alpha) / alpha) ** 0.5)
    assert {s.index for s in levels} == {-1}


def test_the_ends_of_the_log_snr():
    assert Step(0, 999.0, math.inf).log_snr == -math.inf
    assert Step(0, 0.0, 0.0).log_snr == math.inf


def test_every_trained_level_is_at_its_whole_time(tiny):
    """To rounding is not enough: networks are told whole times as integers."""
    for level in tiny.levels:
        assert tiny.step_at(sigma=level.sigma).t == tiny.step_at(log_snr=level.log_snr).t == level.t


def test_flow_matching_has_a_level_from_all_noise_to_none():
    model = opened("sd3")
    assert model.step_at(t=1000).sigma == math.inf and model.step_at(sigma=math.inf).t == 1000
    assert model.step_at(t=0).sigma == 0 and model.step_at(sigma=0.0).t == 0
    step = model.step_at(log_snr=-2 * math.log(3))
    assert (step.sigma, step.t) == pytest.approx((3.0, 750.0))
    assert [s.t for s in model.levels] == list(range(999, 0, -1))
    assert model.levels[249].sigma == pytest.approx(3)
    for name in ("t", "sigma"):
        with pytest.raises(ValueError, match=f"{name} is -1; "):
            model.step_at(**{name: -1})
    with pytest.raises(ValueError, match="t is 1001; the model was trained from 0 to 1000"):
        model.step_at(t=1001)
    with torch.no_grad():
        for step in (model.step_at(t=1000), model.step_at(t=0)):  # which contradict nothing
            assert model.denoise(model.noise([0]), step, ["a cat"]).isfinite().all()


def test_levels_of_flow_matching():
    model = opened("sd3")
    step = model.step_at(t=250)
    assert step.sigma == pytest.approx(1 / 3)
    assert model.step_at(sigma=1 / 3).t == pytest.approx(250)
    x, noise = torch.randn(2, 1, 4, 8, 8)
    mixed = 0.75 * x + 0.25 * noise
    torch.testing.assert_close(model.to_x0(mixed, noise - x, step), x)


def test_a_step_that_contradicts_itself_is_refused(tiny):
    x = tiny.noise([0])
    right = tiny.step_at(t=300)
    for wrong in (
        Step(0, 300, right.sigma * 1.2),
        Step(0, 300, right.sigma / 1.2),
        Step(0, 900, right.sigma),
        Step(0, 300, math.inf),
        Step(0, 300, 0.0),
    ):
        with pytest.raises(ValueError, match=r"contradicts itself: at t = .* model.step_at\(sigma="):
            tiny.denoise(x, wrong, ["a cat"])
    flow = opened("sd3")
    for t, sigma in ((500, 3.0), (500, 0.9), (500, 1.1), (500, math.inf), (500, 0.0), (0, 3.0), (1000, 3.0)):
        with pytest.raises(ValueError, match="contradicts itself"):
            flow.denoise(flow.noise([0]), Step(0, t, sigma), ["a cat"])


def test_a_step_whose_time_was_rounded_is_taken(tiny):
    x, right = tiny.noise([0]), tiny.step_at(t=300)
    with torch.no_grad():
        plain = tiny.denoise(x, right, ["a cat"])
        assert torch.equal(tiny.denoise(x, Step(0, 300, right.sigma * 1.05), ["a cat"]), plain)
        flow = opened("sd3")
        x = flow.noise([0])
        near = Step(0, 1, 1.5 / 998.5)  # half as much again as at t = 1, as a share nothing
        assert torch.equal(flow.denoise(x, near, ["a cat"]), flow.denoise(x, flow.step_at(t=1), ["a cat"]))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "one of log_snr, sigma or t; got none"),
        ({"t": 3, "sigma": 1.0}, "one of log_snr, sigma or t; got .*t.*sigma|one of .*sigma.*t"),
        ({"t": 1000}, "t is 1000; the model was trained from 0 to 999"),
        ({"t": -1}, "t is -1; the model was trained from 0 to 999"),
        ({"sigma": 1e9}, "sigma is 1e\\+09; the model was trained from"),
        ({"sigma": 0.0}, "sigma is 0; the model was trained from"),
        ({"log_snr": -50.0}, "log_snr is -50; the model was trained from"),
        ({"log_snr": 50.0}, "log_snr is 50; the model was trained from"),
    ],
)
def test_levels_that_cannot_be_are_refused(tiny, given, message):
    with pytest.raises(ValueError, match=message):
        tiny.step_at(**given)


def test_unconditional_models_have_levels_too():
    model = load(tiny_ddpm())
    assert model.step_at(log_snr=model.levels[10].log_snr).t == model.levels[10].t


def test_zero_terminal_snr_begins_with_pure_noise():
    pipe = tiny_sd(prediction_type="v_prediction")
    pipe.scheduler = diffusers.DDIMScheduler.from_config(
        pipe.scheduler.config, rescale_betas_zero_snr=True, timestep_spacing="trailing"
    )
    model = load(pipe)
    steps = model.steps(4)
    assert steps[0] == Step(0, 999, math.inf)
    assert all(math.isfinite(s.sigma) for s in steps[1:])
    with torch.no_grad():
        *_, state = model.sample(["a cat"], seeds=[0], steps=4)
    assert bool(state.latents.isfinite().all())


def test_levels_of_a_network_that_is_told_levels_are_refused_outside_a_run():
    pipe = tiny_sd()
    pipe.scheduler = diffusers.EulerDiscreteScheduler.from_config(
        pipe.scheduler.config, timestep_type="continuous", prediction_type="v_prediction"
    )
    model = load(pipe)
    for step in model.steps(4):  # 0.25 log(sigma), which may look like a time
        assert step.t == pytest.approx(0.25 * math.log(step.sigma), abs=1e-4)
        with torch.no_grad():
            model.denoise(model.noise([0]), step, ["a cat"])
    for ask in (lambda: model.levels, lambda: model.step_at(sigma=1.0), lambda: model.step_at(t=500)):
        with pytest.raises(ValueError, match=r"timestep_type='continuous'.*model\.steps\(n\)"):
            ask()
