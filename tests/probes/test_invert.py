"""Inversion: a step and its undoing, the way back and forth, whose error falls with the number of steps."""

import diffusers
import pytest
import torch

from denoscope.models.load import load
from denoscope.models.run.prediction import scales
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
@pytest.mark.parametrize("spacing", ["leading", "linspace"])
@pytest.mark.parametrize("scheduler", ["DDIMScheduler", "EulerDiscreteScheduler"])
def test_with_an_output_that_stays_each_step_is_undone_exactly(kind, spacing, scheduler):
    """DDIM goes by the time, whatever the next step is."""
    model = load(tiny_models.tiny_sd(prediction_type=kind))
    model.pipe.scheduler = getattr(diffusers, scheduler).from_config(
        model.scheduler.config, timestep_spacing=spacing
    )
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


@pytest.mark.parametrize("kind", ["epsilon", "sample"])
def test_whichever_way_the_noise_is_predicted_the_same_step_is_undone(kind):
    model = load(tiny_models.tiny_sd(prediction_type=kind))
    own, x, eps = model._begin(Schedule(4)), model.noise([1]), model.noise([9])
    for step, after in _undone(model, own, 4):
        a, s = (1 + step.sigma**2) ** -0.5, step.sigma * (1 + step.sigma**2) ** -0.5
        a_after = (1 + after.sigma**2) ** -0.5
        output = eps if kind == "epsilon" else (x - s * eps) / a
        clean = (x - after.sigma * a_after * eps) / a_after
        torch.testing.assert_close(
            _backwards(own, x, output, step, after), a * clean + s * eps, atol=1e-4, rtol=1e-3
        )


def test_in_half_precision_the_start_is_too():
    pipe = tiny_models.tiny_sd()
    pipe.to(torch.bfloat16)
    model = load(pipe)
    latents = model.noise([0]).to(torch.bfloat16)
    start = invert_latents(model, latents, ["a cat"], steps=2)
    assert start.latents.dtype == model.start([0], 2).latents.dtype
    wide = invert_latents(model, latents.float(), ["a cat"], steps=2)
    assert torch.equal(wide.latents, start.latents)
    own = model._begin(Schedule(2))
    step, after = _undone(model, own, 2)[0]
    assert _backwards(own, latents, latents, step, after).dtype == torch.bfloat16


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


class PredictsClean(Analytic):
    """The same mixture, whose network says the clean point in place of the noise."""

    def __init__(self, mixture):
        super().__init__(mixture)
        config = self.scheduler.config
        self.pipe.scheduler = diffusers.DDIMScheduler.from_config(config, prediction_type="sample")

    def predict(self, x, step, prompts):
        a, s = scales(self.scheduler, step, x)
        return (x - s * super().predict(x, step, prompts)) / a


def test_a_network_that_predicts_the_clean_picture_is_inverted_as_one_that_predicts_its_noise():
    """An output that stays is no guide here: a clean picture at hand says nothing of its noise, and what its
    prediction lacks would be blown up by the ratio of two noise levels (errors of 21 at 4 steps)."""
    points = torch.tensor([[1.7, -2.2], [-2.3, 1.9]], dtype=torch.float64)
    texts, noise, clean = ["circle red", "square"], Analytic(two_by_two()), PredictsClean(two_by_two())
    for n in (4, 10, 40):
        run = {"steps": n}
        starts = [invert_latents(m, points, texts, **run).latents for m in (noise, clean)]
        torch.testing.assert_close(*starts, rtol=1e-6, atol=1e-6)
    errors = [round_trip(clean, points, texts, n) for n in (10, 40, 160)]
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


@pytest.mark.parametrize("scheduler", ["DDIMScheduler", "EulerDiscreteScheduler"])
def test_the_error_of_a_velocity_falls_with_the_number_of_steps(scheduler):
    """Euler's latents have another scale."""
    model = load(tiny_models.tiny_sd(prediction_type="v_prediction"))
    model.pipe.scheduler = getattr(diffusers, scheduler).from_config(model.scheduler.config)
    errors = [round_trip(model, model.noise([5]) / 2, ["a cat"], n) for n in (2, 8, 32)]
    assert errors[0] > 1.5 * errors[1] > 2 * errors[2] and errors[2] < 0.1


@pytest.mark.stress
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


@pytest.mark.parametrize(("kind", "options"), [("HeunDiscrete", {}), ("PNDM", {"skip_prk_steps": True})])
def test_of_two_calls_at_one_level_one_is_undone(kind, options):
    model = load(tiny_models.tiny_sd())
    kind = getattr(diffusers, f"{kind}Scheduler")
    model.pipe.scheduler = kind.from_config(model.scheduler.config, **options)
    made = _undone(model, model._begin(Schedule(4)), 4)
    levels = [step.sigma for step, _ in made]
    assert len(levels) == 4 and levels == sorted(set(levels), reverse=True)
    assert [after.sigma for _, after in made[:-1]] == levels[1:]


def test_a_run_is_undone_from_the_level_that_it_ends_at():
    model = load(tiny_models.tiny_sd())
    model.pipe.scheduler = diffusers.EulerDiscreteScheduler.from_config(
        model.scheduler.config, final_sigmas_type="sigma_min"
    )
    own = model._begin(Schedule(4))
    assert _undone(model, own, 4)[-1][1].sigma == float(own.sigmas[-1]) > 0


@torch.no_grad()
def test_each_step_is_undone_with_the_output_of_its_own_time_and_guidance(tiny):
    x, prompts = tiny.noise([3]) / 2, tiny.prompts(["a cat"])
    own = tiny._begin(Schedule(2))
    for step, after in reversed(_undone(tiny, own, 2)):
        x = _backwards(own, x, tiny.denoise(x, step, prompts, guidance=3.0), step, after)
    start = invert_latents(tiny, tiny.noise([3]) / 2, ["a cat"], steps=2, guidance=3.0)
    assert torch.equal(start.latents, x)
    plain = invert_latents(tiny, tiny.noise([3]) / 2, ["a cat"], steps=2)
    assert not torch.allclose(start.latents, plain.latents, atol=1e-3)


def test_pictures_are_inverted_as_their_latents_are(tiny):
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    how = {"steps": 2, "guidance": 3.0}
    with torch.no_grad():
        latents = tiny.encode_image(images)
    made = invert(tiny, images, ["a cat", "a dog"], **how)
    assert torch.equal(made.latents, invert_latents(tiny, latents, ["a cat", "a dog"], **how).latents)


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
    clipping.pipe.scheduler = diffusers.DDIMScheduler(clip_sample=False, thresholding=True)
    with pytest.raises(ValueError, match="thresholding=True.*thresholding=False"):
        invert_latents(clipping, clipping.noise([0]), [""], steps=2)
    flow = opened("sd3")
    own = flow.pipe.scheduler
    try:
        flow.pipe.scheduler = type(own).from_config(own.config, stochastic_sampling=True)
        with pytest.raises(ValueError, match="draws noise at every step"):
            invert_latents(flow, flow.noise([0]), ["a cat"], steps=2)
    finally:
        flow.pipe.scheduler = own
    with pytest.raises(ValueError, match=r"1 pictures, but prompts are 'c'; give one for each"):
        invert_latents(tiny, tiny.noise([0]), "c", steps=2)
    with pytest.raises(ValueError, match=r"latents are \(1, 4, 8, 4\).*\[sample, 4, 8, 8\]"):
        invert_latents(tiny, tiny.noise([0])[..., :4], ["a cat"], steps=2)
    with pytest.raises(ValueError, match="1 pictures, but prompts are"):
        invert_latents(tiny, tiny.noise([0]), ["a cat", "a dog"], steps=2)
