"""Settings of a run equal the pipelines' to the bit; what cannot act is refused by name."""

from __future__ import annotations

import warnings
from contextlib import contextmanager

import diffusers
import pytest
import torch

from denoscope.models.guidance import CFG
from denoscope.models.run.sampling import Sampling
from denoscope.probes.intervene import When, zero
from denoscope.probes.sweep.sweeping import SweepRun, sweep
from denoscope.probes.trace import trace
from tests.models.families.test_families import opened

PROMPTS, SEEDS = ["a red cat", "a dog"], [3, 5]
MID = "unet/mid.attn.0.0/resid.post"
TIMES = (999, 700, 400, 50)


@contextmanager
def scheduled(model, name, **options):
    """The model with another scheduler for a while."""
    original = model.pipe.scheduler
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.pipe.scheduler = getattr(diffusers, name).from_config(original.config, **options)
    try:
        yield model
    finally:
        model.pipe.scheduler = original


def ours(model, prompts=PROMPTS, seeds=SEEDS, **settings):
    with torch.no_grad():
        *_, state = model.sample(prompts, seeds=seeds, **settings)
    return state.latents


def theirs(model, prompts=PROMPTS, seeds=SEEDS, **options):
    generators = [torch.Generator().manual_seed(s) for s in seeds]
    height, width = model.size
    return model.pipe(
        list(prompts), generator=generators, output_type="latent", height=height, width=width, **options
    ).images


# own times and levels -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "DDPMScheduler",
        "DPMSolverMultistepScheduler",
        "DPMSolverSinglestepScheduler",
        "EulerDiscreteScheduler",
        "HeunDiscreteScheduler",
    ],
)
def test_own_times_equal_the_pipelines(tiny, name):
    with scheduled(tiny, name) as model:
        own = ours(model, guidance=4.0, timesteps=TIMES)
        assert torch.equal(own, theirs(model, guidance_scale=4.0, timesteps=list(TIMES)))
        assert not torch.equal(own, ours(model, guidance=4.0, steps=4))
        told = [s.t for s in model.steps(Sampling(timesteps=TIMES))]
        assert list(dict.fromkeys(told)) == list(TIMES)


@pytest.mark.parametrize(
    ("family", "sigmas"),
    [
        ("sd", (12.0, 4.0, 0.5, 0.0)),
        ("sdxl", (12.0, 3.0, 0.1)),
        ("sd3", (1.0, 0.6, 0.1)),
        ("flux-dev", (1.0, 0.4)),
    ],
)
def test_own_levels_equal_the_pipelines(family, sigmas):
    with scheduled(opened(family), "EulerDiscreteScheduler") if family == "sd" else plain(family) as model:
        told = {"max_sequence_length": model.t5_tokens} if hasattr(model, "t5_tokens") else {}
        own = ours(model, guidance=4.0, sigmas=sigmas)
        assert torch.equal(own, theirs(model, guidance_scale=4.0, sigmas=list(sigmas), **told))
        assert not torch.equal(
            own, ours(model, guidance=4.0, steps=len(model.steps(Sampling(sigmas=sigmas))))
        )


@contextmanager
def plain(family):
    yield opened(family)


def test_a_sweep_with_own_times_goes_on_from_its_plain_run(tiny):
    with scheduled(tiny, "DPMSolverMultistepScheduler") as model:
        change = zero(MID, When({2}))
        runs = [SweepRun("a red cat", 3), SweepRun("a red cat", 3, (change,))]
        swept = sweep(model, runs, timesteps=TIMES, guidance=4.0)
        alone = ours(model, PROMPTS[:1], [3], timesteps=TIMES, guidance=4.0)
        changed = ours(model, PROMPTS[:1], [3], timesteps=TIMES, guidance=4.0, interventions=[change])
        torch.testing.assert_close(swept.latents, torch.cat([alone, changed]))
        assert not torch.allclose(alone, changed) and swept.rows < 16


def test_a_sweep_needs_no_number_of_steps(tiny):
    torch.testing.assert_close(
        sweep(tiny, [SweepRun("a dog", 5)]).latents, ours(tiny, ["a dog"], [5], steps=20)
    )


@pytest.mark.parametrize(
    ("scheduler", "settings", "message"),
    [
        ("DDIMScheduler", {"timesteps": TIMES}, "DDIMScheduler takes no timesteps"),
        ("HeunDiscreteScheduler", {"sigmas": (3.0, 1.0)}, "takes no sigmas .* give timesteps"),
        ("DDPMScheduler", {"timesteps": (1000, 3)}, "trained on 0 to 999"),
        ("EulerDiscreteScheduler", {"sigmas": (3.0, 1.0, 0.0), "steps": 3}, "sigmas make 2; leave steps out"),
        ("DDPMScheduler", {"timesteps": TIMES, "steps": 3}, "timesteps make 4; leave steps out"),
        ("DDPMScheduler", {"timesteps": (3, 3)}, "each below the one before"),
        ("DDPMScheduler", {"timesteps": ()}, "each below the one before"),
        ("EulerDiscreteScheduler", {"sigmas": (float("nan"), 1.0)}, "numbers from 0 up"),
        ("EulerDiscreteScheduler", {"sigmas": (2, 1), "timesteps": (2, 1)}, "give one"),
        ("EulerDiscreteScheduler", {"eta": 0.5}, "EulerDiscreteScheduler takes none"),
        ("DDIMScheduler", {"eta": 1.5}, "eta is 1.5"),
    ],
)
def test_schedules_that_cannot_be_are_refused(tiny, scheduler, settings, message):
    with scheduled(tiny, scheduler) as model, pytest.raises(ValueError, match=message):
        ours(model, **settings)


def test_flow_matching_takes_levels_alone():
    with pytest.raises(ValueError, match="takes no timesteps .* give sigmas"):
        ours(opened("sd3"), timesteps=TIMES)


def test_eta_is_the_pipelines(tiny):
    own = ours(tiny, guidance=4.0, steps=3, eta=0.7)
    assert torch.equal(own, theirs(tiny, guidance_scale=4.0, num_inference_steps=3, eta=0.7))
    assert not torch.equal(own, ours(tiny, guidance=4.0, steps=3))


# guidance rescaled ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_guidance_rescale_is_the_pipelines(family):
    model = opened(family)
    own = ours(model, guidance=6.0, guidance_rescale=0.7, steps=3)
    pipeline = theirs(model, guidance_scale=6.0, guidance_rescale=0.7, num_inference_steps=3)
    assert torch.equal(own, pipeline)
    assert torch.equal(own, ours(model, guidance=CFG(6.0, rescale=0.7), steps=3))
    assert not torch.equal(own, ours(model, guidance=6.0, steps=3))


def test_what_cannot_be_rescaled_is_refused(tiny):
    with pytest.raises(ValueError, match=r"write it there"):
        Sampling(guidance=CFG(4.0), guidance_rescale=0.7)
    with pytest.raises(ValueError, match=r"rescale is 1\.5"):
        Sampling(guidance_rescale=1.5)
    with pytest.raises(ValueError, match="not guided"):
        ours(tiny, guidance=1.0, guidance_rescale=0.7, steps=2)


def test_provenance_holds_what_was_set(tiny):
    with scheduled(tiny, "DDPMScheduler") as model:
        about = trace(model, ["a"], seeds=[0], timesteps=TIMES, guidance=4.0, guidance_rescale=0.5).about
        assert about["timesteps"] == list(TIMES) and about["guidance_rescale"] == 0.5 and about["steps"] == 4
        assert "guidance_rescale" not in trace(model, ["a"], seeds=[0], steps=2).about
