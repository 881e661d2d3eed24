"""Half-noised pictures: going on from them equals diffusers' img2img pipelines to the bit."""

import warnings

import diffusers
import pytest
import torch

from denoscope.models.load import load
from denoscope.models.run.levels import Step
from denoscope.models.run.noising import noised
from denoscope.models.run.prediction import scales
from denoscope.models.run.schedule import Schedule
from tests.models.families.test_families import FAMILIES, opened
from tests.models.test_encode_image import IMG2IMG, pictures

PROMPTS = ["a red cat", "a dog"]
STEPS, STRENGTH = 5, 0.6
START = STEPS - int(STEPS * STRENGTH)
SCHEDULERS = [
    "DDIMScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "UniPCMultistepScheduler",
]


def img2img(model, name, x, seeds, guidance):
    """Pictures from diffusers' own pipeline, on a scheduler of its own."""
    parts = dict(model.pipe.components)
    parts["scheduler"] = type(model.scheduler).from_config(model.scheduler.config)
    pipe = IMG2IMG[name](**parts)
    pipe.set_progress_bar_config(disable=True)
    more = {"max_sequence_length": model.t5_tokens} if hasattr(model, "t5_tokens") else {}
    generators = [torch.Generator().manual_seed(s) for s in seeds]
    if name.startswith("flux"):
        more.update(height=model.size[0], width=model.size[1])
    told = {"prompt": PROMPTS, "image": x, "strength": STRENGTH, "num_inference_steps": STEPS, **more}
    images = pipe(**told, guidance_scale=guidance, generator=generators, output_type="np").images
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def ours(model, x, seeds, guidance, index):
    start = model.start_at(x, index, seeds, steps=STEPS)
    run = model.sample(PROMPTS, seeds=seeds, start=start, steps=STEPS, guidance=guidance)
    return model.decode(list(run)[-1].latents)


@pytest.mark.parametrize("name", IMG2IMG)
@torch.no_grad()
def test_it_equals_the_img2img_pipeline_of_the_family(name):
    model, seeds = opened(name), [3, 4]
    x = pictures(model)
    theirs = img2img(model, name, x, seeds, model.default_guidance)
    assert torch.equal(ours(model, x, seeds, model.default_guidance, START), theirs)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@torch.no_grad()
def test_it_equals_img2img_on_every_scheduler(scheduler):
    model = load(FAMILIES["sd"].make())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.pipe.scheduler = getattr(diffusers, scheduler).from_config(model.scheduler.config)
        x, seeds = pictures(model), [3, 4]
        theirs = img2img(model, "sd", x, seeds, 4.0)
        index = START * getattr(model.scheduler, "order", 1)
        assert torch.equal(ours(model, x, seeds, 4.0, index), theirs)


@torch.no_grad()
def test_rows_depend_on_their_own_seed_and_picture_alone(tiny):
    x = pictures(tiny)
    both, second = tiny.start_at(x, 2, [7, 8], steps=4), tiny.start_at(x[1:], 2, [8], steps=4)
    assert torch.equal(both.latents[1:], second.latents) and both.index == second.index == 2
    assert not torch.equal(second.latents, tiny.start_at(x[1:], 2, [9], steps=4).latents)


@torch.no_grad()
def test_a_step_of_the_run_is_as_good_as_its_index(tiny):
    x = pictures(tiny, 1)
    step = tiny.steps(4)[3]
    assert torch.equal(
        tiny.start_at(x, step, [0], steps=4).latents, tiny.start_at(x, 3, [0], steps=4).latents
    )


@pytest.mark.parametrize("name", ["sd", "sdxl", "pixart-alpha", "sd3", "sana", "flux-dev", "ddpm"])
def test_noising_at_its_own_times_is_the_law_in_the_schedulers_scale(name):
    """In or out of a run, ``x_t / c = a x_0 + s eps`` with the a and s of the step's noise level."""
    model = opened(name)
    scheduler = model._begin(Schedule(6))
    clean, noise = model.noise([0, 1]), model.noise([2, 3])
    for step in model.steps(6):
        if step.sigma == float("inf"):
            continue
        a, s = scales(scheduler, step, clean)
        law = a * clean + s * noise
        seen = noised(scheduler, clean, noise, step)
        if hasattr(scheduler, "scale_model_input"):
            own = model._begin(Schedule(6))
            seen = own.scale_model_input(seen, own.timesteps[step.index])
        torch.testing.assert_close(seen, law, atol=2e-3, rtol=1e-3)
        outside = noised(scheduler, clean, noise, Step(-1, step.t, step.sigma))
        torch.testing.assert_close(
            outside, noised(scheduler, clean, noise, step), atol=2e-3 * (1 + step.sigma), rtol=1e-3
        )


@torch.no_grad()
def test_noising_with_the_scheduler_of_a_run_that_goes_on_is_the_same():
    model = opened("sdxl")
    run = model.sample(["a cat"], seeds=[0], steps=4)
    next(run)
    used = next(run).sampler_state().scheduler
    clean, noise, step = model.noise([0]), model.noise([1]), model.steps(4)[3]
    expected = noised(model._begin(Schedule(4)), clean, noise, step)
    assert torch.equal(noised(used, clean, noise, step), expected)
    assert used.step_index == 2


def test_noising_leaves_the_scheduler_as_it_was(tiny):
    tiny_scheduler = diffusers.EulerDiscreteScheduler.from_config(tiny.scheduler.config)
    tiny_scheduler.set_timesteps(4)
    noised(tiny_scheduler, tiny.noise([0]), tiny.noise([1]), Step(2, 0.0, 1.0))
    assert tiny_scheduler.begin_index is None


def test_starts_that_cannot_be_are_refused(tiny):
    x = pictures(tiny, 1)
    with pytest.raises(ValueError, match=r"step is 4; a run of 4 steps has 0 .* to 3"):
        tiny.start_at(x, 4, [0], steps=4)
    with pytest.raises(ValueError, match="step is Step.*a run of 4 steps"):
        tiny.start_at(x, tiny.step_at(sigma=1.0), [0], steps=4)
    with pytest.raises(ValueError, match=r"is of another run; take one of model\.steps\(4\)"):
        tiny.start_at(x, tiny.steps(5)[2], [0], steps=4)
    with pytest.raises(ValueError, match="1 images but 2 seeds"):
        tiny.start_at(x, 1, [0, 1], steps=4)
    with pytest.raises(TypeError, match="single number"):
        tiny.start_at(x, 1, 0, steps=4)


def test_a_second_call_of_a_step_is_no_start():
    model = load(FAMILIES["sd"].make())
    model.pipe.scheduler = diffusers.HeunDiscreteScheduler.from_config(model.scheduler.config)
    with pytest.raises(ValueError, match="start at 2"):
        model.start_at(pictures(model, 1), 3, [0], steps=4)
