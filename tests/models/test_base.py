"""The loop equals diffusers to the bit on every scheduler; a batch equals its parts; time and prediction."""

import warnings

import diffusers
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from denoscope.models.check import ModelCheckError, check_model
from denoscope.models.load import load
from denoscope.models.synthetic.tiny import tiny_ddim, tiny_ddpm, tiny_sd

PROMPTS = ["a red cat", "a dog"]
SCHEDULERS = [
    "DDIMScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "UniPCMultistepScheduler",
]


@pytest.fixture
def swapped(tiny):
    """The tiny model, to be given other schedulers."""
    original = tiny.pipe.scheduler

    def swap(name):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tiny.pipe.scheduler = getattr(diffusers, name).from_config(original.config)
        return tiny

    yield swap
    tiny.pipe.scheduler = original


def final(model, prompts, seeds, **settings):
    with torch.no_grad():
        *_, state = model.sample(prompts, seeds=seeds, **settings)
    return state.latents


@pytest.mark.parametrize("guidance", [0.0, 1.0, 7.5])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_our_loop_is_the_pipelines_loop(swapped, name, guidance):
    model = swapped(name)
    generators = [torch.Generator().manual_seed(s) for s in (3, 5)]
    theirs = model.pipe(
        PROMPTS, num_inference_steps=4, guidance_scale=guidance, generator=generators, output_type="latent"
    ).images
    assert torch.equal(final(model, PROMPTS, [3, 5], steps=4, guidance=guidance), theirs)


def test_a_negative_prompt_is_the_pipelines_too(tiny):
    generators = [torch.Generator().manual_seed(s) for s in (0, 1)]
    theirs = tiny.pipe(
        PROMPTS,
        negative_prompt=["dog"] * 2,
        num_inference_steps=3,
        generator=generators,
        output_type="latent",
    ).images
    assert torch.equal(final(tiny, PROMPTS, [0, 1], steps=3, negative="dog"), theirs)


@pytest.mark.parametrize(
    "make", [tiny_sd, lambda: tiny_sd(prediction_type="v_prediction"), tiny_ddpm, tiny_ddim]
)
def test_every_adapter_holds(make):
    table = check_model(load(make()))
    assert len(table) >= 4 and (table["error"] <= table["allowed"]).all()


def test_check_model_finds_a_wrong_adapter(tiny, monkeypatch):
    monkeypatch.setattr(type(tiny), "negative", lambda self, texts, *_: self.encode(["a dog"] * len(texts)))
    with pytest.raises(ModelCheckError, match=r"DDIMScheduler, guidance 7\.5"):
        check_model(tiny)


def test_a_run_leaves_the_pipelines_scheduler_alone(tiny):
    before = dict(vars(tiny.pipe.scheduler))
    final(tiny, PROMPTS, [0, 1], steps=3)
    assert all(vars(tiny.pipe.scheduler)[k] is v for k, v in before.items())


def test_two_runs_can_be_interleaved(swapped):
    model = swapped("DPMSolverMultistepScheduler")
    alone = [final(model, [p], [s], steps=4) for p, s in (("a cat", 0), ("a dog", 1))]
    with torch.no_grad():
        pairs = list(
            zip(
                model.sample(["a cat"], seeds=[0], steps=4),
                model.sample(["a dog"], seeds=[1], steps=4),
                strict=True,
            )
        )
    assert torch.equal(pairs[-1][0].latents, alone[0]) and torch.equal(pairs[-1][1].latents, alone[1])


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_run_goes_on_from_a_checkpoint_to_the_bit(swapped, name):
    model = swapped(name)
    with torch.no_grad():
        states = list(model.sample(PROMPTS, seeds=[0, 1], steps=4))
        run = model.sample(PROMPTS, seeds=[0, 1], steps=4)
        middle = [next(run) for _ in range(2)][-1].sampler_state()
        rest = list(model.sample(PROMPTS, seeds=[0, 1], steps=4, start=middle))
    assert rest[0].step.index == 2 and torch.equal(rest[-1].latents, states[-1].latents)


def test_rows_of_a_checkpoint_can_be_taken_and_joined(swapped):
    model = swapped("DPMSolverMultistepScheduler")
    with torch.no_grad():
        run = model.sample(PROMPTS, seeds=[0, 1], steps=4)
        middle = [next(run) for _ in range(2)][-1].sampler_state()
        whole = list(run)[-1].latents
        turned = middle.join([middle.rows([1]), middle.rows([0])])
        *_, state = model.sample(PROMPTS[::-1], seeds=[1, 0], steps=4, start=turned)
    torch.testing.assert_close(state.latents.flip(0), whole, atol=1e-5, rtol=1e-4)


@given(seed=st.integers(0, 2**31), n=st.integers(1, 4))
def test_each_row_has_its_own_noise(tiny, seed, n):
    seeds = [seed + i for i in range(n)]
    rows = tiny.noise(seeds)
    assert all(torch.equal(rows[i : i + 1], tiny.noise([s])) for i, s in enumerate(seeds))


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_the_three_predictions_agree(kind):
    model = load(tiny_sd(prediction_type=kind))
    step = model.steps(5)[2]
    a = (1 + step.sigma**2) ** -0.5
    s = step.sigma * a
    x0, eps = model.noise([0]), model.noise([1])
    seen = a * x0 + s * eps
    output = eps if kind == "epsilon" else a * eps - s * x0
    for found, true in (
        (model.to_x0(seen, output, step), x0),
        (model.to_eps(seen, output, step), eps),
        (model.to_v(seen, output, step), a * eps - s * x0),
    ):
        torch.testing.assert_close(found, true, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["DDIMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler"])
def test_the_noise_level_is_the_same_for_all_schedulers(swapped, name):
    model = swapped(name)
    alphas = swapped("DDPMScheduler").scheduler.alphas_cumprod
    sigmas = ((1 - alphas) / alphas) ** 0.5
    for step in swapped(name).steps(5):  # Euler tells the network times between the trained ones
        between = np.interp(step.t, range(len(sigmas)), sigmas.numpy())
        assert step.sigma == pytest.approx(between, rel=1e-3)
    assert [s.index for s in model.steps(5)] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("name", ["EDMEulerScheduler", "IPNDMScheduler"])
def test_refused_schedulers_say_what_to_use(swapped, name):
    with pytest.raises(ValueError, match="DPMSolverMultistepScheduler"):
        list(swapped(name).sample(["a"], seeds=[0], steps=2))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"steps": 0}, ValueError, "steps is 0"),
        ({"steps": 5000}, ValueError, "trained on 1000"),
        ({"guidance": -1.0}, ValueError, "guidance is -1"),
        ({"guidance": float("nan")}, ValueError, "guidance is nan"),
        ({"seeds": [0]}, ValueError, "2 prompts but 1 seeds"),
        ({"seeds": 0}, TypeError, r"\[0\]"),
    ],
)
def test_impossible_runs_are_refused(tiny, change, error, message):
    with pytest.raises(error, match=message):
        next(tiny.sample(PROMPTS, **{"seeds": [0, 1], "steps": 2, **change}))
    assert tiny.call is None


def test_a_string_for_a_list_is_refused(tiny):
    with pytest.raises(TypeError, match=r"\['a cat'\]"):
        tiny.encode("a cat")
