"""Settings of a run equal the pipelines' to the bit; what cannot act is refused by name."""

from __future__ import annotations

import warnings
from contextlib import contextmanager

import diffusers
import pytest
import torch

from denoscope.models.guidance import CFG
from denoscope.models.load import load
from denoscope.models.run.sampling import Sampling
from denoscope.models.synthetic.tiny import tiny_sd, tiny_unet
from denoscope.models.synthetic.tiny_families import tiny_sdxl
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
        ("DDPMScheduler", {"timesteps": (3, -3)}, "numbers from 0 up"),
        ("EulerDiscreteScheduler", {"sigmas": (float("inf"), 1.0)}, "numbers from 0 up"),
        ("DDIMScheduler", {"steps": 0}, "steps is 0; a run needs at least 1"),
        ("DDIMScheduler", {"steps": 1001}, "steps is 1001; DDIMScheduler was trained on 1000"),
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
    with pytest.raises(ValueError, match="guidance is -1"):
        Sampling(guidance=-1.0)
    with pytest.raises(ValueError, match="not guided"):
        ours(tiny, guidance=1.0, guidance_rescale=0.7, steps=2)


def test_provenance_holds_what_was_set(tiny):
    with scheduled(tiny, "DDPMScheduler") as model:
        about = trace(model, ["a"], seeds=[0], timesteps=TIMES, guidance=4.0, guidance_rescale=0.5).about
        assert about["timesteps"] == list(TIMES) and about["guidance_rescale"] == 0.5 and about["steps"] == 4
        assert "guidance_rescale" not in trace(model, ["a"], seeds=[0], steps=2).about


def test_settings_are_described_by_numbers_and_texts(tiny):
    negative = [tiny.encode(["a dog"])[0], "a fish"]
    told = Sampling(3, negative=negative, eta=0.5, clip_skip=1).described(tiny)
    assert told == {
        "steps": 3,
        "guidance": tiny.default_guidance,
        "negative": ["a dog", "a fish"],
        "eta": 0.5,
        "clip_skip": 1,
    }
    assert Sampling(guidance=CFG(4.0)).described(tiny)["guidance"] == repr(CFG(4.0))
    with scheduled(tiny, "HeunDiscreteScheduler") as model:  # seven calls of the network
        assert Sampling(timesteps=TIMES).described(model)["steps"] == len(TIMES)


def test_how_texts_are_read_is_told_where_it_differs():
    assert Sampling(clip_skip=0, long_prompts=3).text == {"clip_skip": 0, "long_prompts": 3}
    assert Sampling(long_prompts="chunks").text == {"long_prompts": "chunks"} and not Sampling().text


# layers of the text encoder -------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "skip"), [("sd", 0), ("sd", 1), ("sd", 2), ("sdxl", 0), ("sdxl", 1)])
def test_clip_skip_is_the_pipelines(family, skip, monkeypatch):
    model = opened(family)
    encoder = model.pipe.text_encoder
    if not hasattr(encoder, "text_model"):  # the pipeline asks for it, transformers 5 has it no more
        monkeypatch.setitem(vars(encoder), "text_model", encoder)
    own = ours(model, guidance=4.0, steps=2, clip_skip=skip, negative="a dog")
    given = {"guidance_scale": 4.0, "num_inference_steps": 2, "negative_prompt": ["a dog"] * 2}
    assert torch.equal(own, theirs(model, clip_skip=skip, **given))
    assert torch.equal(own, ours(model, guidance=4.0, steps=2, negative="a dog")) == (skip == 0)
    encoded = model.encode(PROMPTS, clip_skip=skip)
    assert torch.equal(own, ours(model, encoded, guidance=4.0, steps=2, negative="a dog"))
    swept = sweep(
        model, [SweepRun(PROMPTS[0], SEEDS[0])], guidance=4.0, steps=2, clip_skip=skip, negative="a dog"
    )
    torch.testing.assert_close(swept.latents, own[:1], rtol=1e-3, atol=1e-3)


def test_clip_skip_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="clip_skip is 3; .* 0 to 2 layers"):
        ours(opened("sd"), clip_skip=3, steps=1)
    for name in ("pixart-sigma", "sd3", "dit", "ldm"):
        with pytest.raises(ValueError, match="takes no clip_skip"):
            ours(opened(name), ["cat"], [0], clip_skip=1, steps=1)
    with pytest.raises(TypeError, match="no option"):
        opened("sd").encode(["a"], clip_jump=1)


# distilled models -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "eta"), [("LCMScheduler", 0.0), ("TCDScheduler", 0.0), ("TCDScheduler", 0.6)]
)
def test_schedulers_of_distilled_models_equal_the_pipelines(tiny, name, eta):
    with scheduled(tiny, name) as model:
        own = ours(model, guidance=3.0, steps=4, eta=eta)
        assert torch.equal(own, theirs(model, guidance_scale=3.0, num_inference_steps=4, eta=eta))
        alone = [
            ours(model, [p], [s], guidance=3.0, steps=4, eta=eta) for p, s in zip(PROMPTS, SEEDS, strict=True)
        ]
        torch.testing.assert_close(torch.cat(alone), own, rtol=1e-4, atol=1e-4)
        noisy = name == "LCMScheduler" or eta > 0
        state = next(model.sample(PROMPTS, seeds=SEEDS, guidance=3.0, steps=4, eta=eta)).sampler_state()
        how = {"guidance": 3.0, "steps": 4, "eta": eta}
        assert torch.equal(ours(model, start=state, **how), own)
        assert torch.equal(ours(model, seeds=[8, 9], start=state.reseeded([8, 9]), **how), own) != noisy


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_a_unet_that_is_told_the_scale(family):
    extra = {"time_cond_proj_dim": 8}
    if family == "sd":
        pipe = tiny_sd()
        pipe.unet = tiny_unet(**extra).eval()
    else:
        pipe = tiny_sdxl()
        known = {k: v for k, v in pipe.unet.config.items() if k != "_use_default_values"}
        pipe.unet = diffusers.UNet2DConditionModel.from_config({**known, **extra}).eval()
    model = load(pipe)
    with scheduled(model, "LCMScheduler"):
        own = ours(model, guidance=8.5, steps=3)
        assert torch.equal(own, theirs(model, guidance_scale=8.5, num_inference_steps=3))
        assert not torch.equal(own, ours(model, guidance=2.0, steps=3))
        assert not model.uses_cfg(8.5)


# sizes that are told --------------------------------------------------------------------------------------

SIZES = {"original_size": (64, 48), "crops_coords_top_left": (3, 9), "target_size": (24, 32)}
NEGATIVE = {"negative_original_size": (8, 8), "negative_target_size": (99, 98)}


@pytest.mark.parametrize("told", [SIZES, {"original_size": (64, 48)}, {**SIZES, **NEGATIVE}, NEGATIVE])
def test_sizes_are_the_pipelines(told):
    model = opened("sdxl")
    one = {"prompts": PROMPTS[:1], "seeds": SEEDS[:1]}  # the pipeline mixes up the branches of larger batches
    own = ours(model, **one, guidance=4.0, steps=2, **told)
    assert torch.equal(own, theirs(model, **one, guidance_scale=4.0, num_inference_steps=2, **told))
    assert not torch.equal(own, ours(model, **one, guidance=4.0, steps=2))
    batch = ours(model, guidance=4.0, steps=2, **told)
    torch.testing.assert_close(batch[:1], own, rtol=1e-4, atol=1e-4)


def test_sizes_are_in_the_digest():
    state = next(opened("sdxl").sample(["a cat"], seeds=[0], steps=1, **SIZES))
    plain = next(opened("sdxl").sample(["a cat"], seeds=[0], steps=1))
    assert state.prompts[0].sizes == SIZES and state.prompts[0].digest != plain.prompts[0].digest


def test_sizes_beside_negative_prompts_begin_at_the_corner_unless_told():
    told, negative = Sampling(**SIZES, **NEGATIVE).sizes(opened("sdxl"))
    assert told == SIZES
    assert negative == {"original_size": (8, 8), "crops_coords_top_left": (0, 0), "target_size": (99, 98)}
    more = Sampling(**SIZES, **NEGATIVE, negative_crops_coords_top_left=(1, 0))
    assert more.sizes(opened("sdxl"))[1]["crops_coords_top_left"] == (1, 0)


def test_sizes_that_cannot_act_are_refused(tiny):
    with pytest.raises(ValueError, match=r"takes no original_size"):
        ours(tiny, steps=1, **SIZES)
    with pytest.raises(ValueError, match=r"takes no negative_original_size"):
        ours(tiny, steps=1, **NEGATIVE)
    with pytest.raises(ValueError, match="not guided"):
        ours(opened("sdxl"), steps=1, guidance=0.0, **NEGATIVE)
    with pytest.raises(ValueError, match="count only together"):
        Sampling(negative_original_size=(8, 8))
    with pytest.raises(ValueError, match="pair of whole numbers"):
        Sampling(target_size=(8, 0))
    with pytest.raises(ValueError, match="pair of whole numbers from 0 up"):
        Sampling(crops_coords_top_left=(0, -1))
    with pytest.raises(TypeError, match=r"original_size\[0\] is 8.5; it is a whole number"):
        Sampling(original_size=(8.5, 8))
