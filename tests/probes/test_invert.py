"""Inversion: a step and its undoing, the way back and forth, whose error falls with the number of steps."""

import diffusers
import pytest
import torch

from denoscope.models.load import load
from denoscope.models.run.schedule import Schedule
from denoscope.models.synthetic import tiny as tiny_models
from denoscope.models.synthetic.analytic import Analytic, two_by_two
from denoscope.probes.invert import STOCHASTIC, _backwards, _undone, invert, invert_latents
from tests.models.families.test_families import opened


def round_trip(model, latents, prompts, steps):
    """Relative error of the latents that come back."""
    start = invert_latents(model, latents, prompts, steps=steps)
    with torch.no_grad():
        run = list(model.sample(prompts, seeds=start.seeds, start=start, steps=steps, guidance=1.0))
    return float((run[-1].latents - latents).norm() / latents.norm())


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("scheduler", ["DDIMScheduler", "EulerDiscreteScheduler"])
def test_with_an_output_that_stays_each_step_is_undone_exactly(kind, scheduler):
    model = load(tiny_models.tiny_sd(prediction_type=kind))
    model.pipe.scheduler = getattr(diffusers, scheduler).from_config(model.scheduler.config)
    steps, output = 4, model.noise([9])
    own = model._begin(Schedule(steps))
    for i, (step, after) in enumerate(_undone(model, own, steps)):
        x = model.noise([1])
        carried = x if scheduler == "DDIMScheduler" else x * (1 + step.sigma**2) ** 0.5
        fresh = model._begin(Schedule(steps))
        if hasattr(fresh, "set_begin_index"):
            fresh.set_begin_index(i)
            fresh.is_scale_input_called = True
        stepped = fresh.step(output, fresh.timesteps[i], carried).prev_sample
        lower = stepped if scheduler == "DDIMScheduler" else stepped / (1 + after.sigma**2) ** 0.5
        torch.testing.assert_close(_backwards(own, lower, output, step, after), x, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", ["sd3", "flux-dev"])
def test_eulers_steps_of_flow_matching_are_undone_exactly(name):
    model = opened(name)
    own, output = model._begin(Schedule(4)), model.noise([9])
    for step, after in _undone(model, own, 4):
        fresh, x = model._begin(Schedule(4)), model.noise([1])
        stepped = fresh_step(fresh, step, output, x)
        torch.testing.assert_close(_backwards(own, stepped, output, step, after), x, atol=1e-5, rtol=1e-4)


def fresh_step(scheduler, step, output, x):
    scheduler.set_begin_index(step.index)
    return scheduler.step(output, scheduler.timesteps[step.index], x).prev_sample


def test_with_the_true_noise_the_error_falls_with_the_number_of_steps():
    model = Analytic(two_by_two())
    points = torch.tensor([[1.7, -2.2], [-2.3, 1.9]], dtype=torch.float64)
    errors = [round_trip(model, points, ["circle red", "square"], n) for n in (10, 40, 160)]
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


def test_the_error_of_a_velocity_falls_with_the_number_of_steps():
    model = load(tiny_models.tiny_sd(prediction_type="v_prediction"))
    errors = [round_trip(model, model.noise([5]) / 2, ["a cat"], n) for n in (2, 8, 32)]
    assert errors[0] > 1.5 * errors[1] > 2 * errors[2] and errors[2] < 0.1


@torch.no_grad()
def test_the_error_on_the_embedded_model_falls_and_pictures_come_back(emoji):
    prompts = ["a noto emoji of a dog"]
    x = emoji.decode(list(emoji.sample(prompts, seeds=[0], steps=6))[-1].latents)
    latents = emoji.encode_image(x)
    errors = [round_trip(emoji, latents, prompts, n) for n in (4, 16)]
    assert errors[1] < 0.8 * errors[0]
    one = invert(emoji, x, prompts, steps=4)
    assert torch.equal(one.latents, invert_latents(emoji, latents, prompts, steps=4).latents)
    assert one.index == 0 and torch.isfinite(one.latents).all()


@pytest.mark.parametrize("name", [*STOCHASTIC, "sde"])
def test_stochastic_schedulers_are_refused_by_name(name):
    model = load(tiny_models.tiny_sd())
    kind = getattr(diffusers, name, diffusers.DPMSolverMultistepScheduler)
    options = {"algorithm_type": "sde-dpmsolver++"} if name == "sde" else {}
    model.pipe.scheduler = kind.from_config(model.scheduler.config, **options)
    with pytest.raises(ValueError, match=f"{kind.__name__} draws noise at every step"):
        invert_latents(model, model.noise([0]), ["a cat"], steps=2)


def test_what_cannot_be_undone_or_does_not_fit_is_refused(tiny):
    clipping = load(tiny_models.tiny_ddim())
    with pytest.raises(ValueError, match="clip_sample=True.*clip_sample=False"):
        invert_latents(clipping, clipping.noise([0]), [""], steps=2)
    with pytest.raises(ValueError, match=r"latents are \(1, 4, 8, 4\).*\[sample, 4, 8, 8\]"):
        invert_latents(tiny, tiny.noise([0])[..., :4], ["a cat"], steps=2)
    with pytest.raises(ValueError, match="1 pictures, but prompts are"):
        invert_latents(tiny, tiny.noise([0]), ["a cat", "a dog"], steps=2)
