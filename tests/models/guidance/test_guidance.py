"""Guidance is a value: numbers are short for it, branches have names, memory goes with the rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from denoscope.models.guidance import CFG, Combined, Guidance, GuidanceBranch, GuidanceContext
from denoscope.models.guidance.parts import names
from denoscope.models.load import load
from denoscope.models.run.context import When
from denoscope.models.run.schedule import Schedule
from denoscope.models.run.state import SamplerState
from denoscope.models.synthetic.tiny import tiny_sd
from denoscope.probes.intervene import Intervention, scale
from denoscope.probes.sweep.sweeping import SweepRun, sweep
from denoscope.probes.trace import trace
from tests.models.families.test_families import FAMILIES, opened

PROMPTS, SEEDS = ["a cat", "a red dog"], [0, 1]
MID = "unet/mid.attn.0.0/resid.post"


def final(model, prompts=PROMPTS, seeds=SEEDS, **settings):
    with torch.no_grad():
        *_, state = model.sample(prompts, seeds=seeds, **{"steps": 3, **settings})
    return state


@pytest.mark.parametrize("name", FAMILIES)
def test_a_number_is_short_for_cfg_to_the_bit(name):
    model = opened(name)
    texts = (FAMILIES[name].texts or ("",))[:1]
    number, value = (final(model, texts, [0], steps=2, guidance=g) for g in (4.0, CFG(4.0)))
    assert torch.equal(number.latents, value.latents) and number.rows == value.rows
    assert number.rows == len(model.branch_names(4.0))


# perturbed-attention guidance (Ahn et al. 2024), in full
@dataclass(frozen=True)
class PerturbedAttention(Guidance):
    """uncond + s (cond - uncond) + w (cond - perturbed), whose self-attention is the identity."""

    site: str
    scale: float
    weight: float

    def branches(self, model):
        def identity(probs, _):
            return torch.eye(probs.shape[-1]).expand_as(probs)

        worse = (Intervention(self.site, identity),)
        return (
            GuidanceBranch("uncond", "negative_prompts"),
            GuidanceBranch("cond"),
            GuidanceBranch("perturbed", interventions=worse),
        )

    def combine(self, outputs, context, memory):
        cond = outputs["cond"]
        guided = outputs["uncond"] + self.scale * (cond - outputs["uncond"])
        return guided + self.weight * (cond - outputs["perturbed"])


SELF = "unet/mid.attn.0.0/self_attn.probs"


def test_a_third_branch_with_an_intervention_of_its_own(tiny):
    perturbed = final(tiny, guidance=PerturbedAttention(SELF, 4.0, 2.0))
    assert perturbed.rows == 6 and set(perturbed.outputs) == {"uncond", "cond", "perturbed"}
    assert not torch.equal(perturbed.outputs["cond"], perturbed.outputs["perturbed"])
    none = final(tiny, guidance=PerturbedAttention(SELF, 4.0, 0.0)).latents
    torch.testing.assert_close(none, final(tiny, guidance=4.0).latents, rtol=1e-4, atol=1e-4)


def test_a_branch_can_be_watched_and_changed_by_its_name(tiny):
    guidance = PerturbedAttention(SELF, 4.0, 2.0)
    seen = trace(
        tiny, PROMPTS, seeds=SEEDS, steps=2, guidance=guidance, sites=SELF, when=When(branch="perturbed")
    )
    assert (seen[SELF] == torch.eye(seen[SELF].shape[-1])).all()
    with pytest.raises(ValueError, match="the run has no branch 'perturbd'; did you mean 'perturbed'"):
        trace(tiny, PROMPTS, seeds=SEEDS, guidance=guidance, sites=SELF, when=When(branch="perturbd"))


@dataclass(frozen=True)
class Asymmetric(Guidance):
    """An edited output for the clean picture, the plain one for the direction (Kwon et al. 2023)."""

    change: float

    def branches(self, model):
        return (GuidanceBranch("cond"), GuidanceBranch("edited", interventions=(scale(MID, self.change),)))

    def combine(self, outputs, context, memory):
        return Combined(outputs["edited"], direction=outputs["cond"])


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@torch.no_grad()
def test_equal_outputs_give_the_plain_ddim_step_to_the_bit(prediction):
    model = load(tiny_sd(prediction_type=prediction))

    @dataclass(frozen=True)
    class Same(Asymmetric):
        def combine(self, outputs, context, memory):
            return Combined(outputs["cond"], direction=outputs["cond"].clone())

    plain = final(model, guidance=1.0)
    torch.testing.assert_close(final(model, guidance=Same(1.0)).latents, plain.latents, rtol=1e-5, atol=1e-5)
    model.pipe.scheduler = type(model.scheduler).from_config(
        model.scheduler.config, set_alpha_to_one=True, steps_offset=0
    )
    for steps in (1, 4):  # to times within, to time 0 and to the end of the schedule, which has no time
        scheduler, x = model._begin(Schedule(steps)), model.start(SEEDS, steps).latents
        for state in model.sample(PROMPTS, seeds=SEEDS, steps=steps, guidance=Same(2.0)):
            t = scheduler.timesteps[state.step.index]
            assert torch.equal(state.latents, scheduler.step(state.output, t, x).prev_sample)
            x = state.latents


def test_the_direction_is_that_of_the_second_output(tiny):
    edited = final(tiny, guidance=Asymmetric(3.0), steps=1)
    scheduler = tiny._begin(Schedule(1))
    t, x = scheduler.timesteps[0], tiny.start(SEEDS, 1).latents
    clean = scheduler.step(edited.outputs["edited"], t, x).pred_original_sample
    last = scheduler.final_alpha_cumprod
    by_hand = last**0.5 * clean + (1 - last) ** 0.5 * edited.outputs["cond"]
    torch.testing.assert_close(edited.latents, by_hand)
    assert not torch.allclose(edited.latents, final(tiny, guidance=1.0, steps=1).latents)


def test_a_direction_is_refused_by_schedulers_without_that_term(swapped):
    model = swapped("EulerDiscreteScheduler")
    with pytest.raises(ValueError, match="EulerDiscreteScheduler has not; use .*DDIMScheduler"):
        final(model, guidance=Asymmetric(2.0))


@pytest.fixture
def swapped(tiny):
    import diffusers

    before = tiny.pipe.scheduler

    def swap(name):
        tiny.pipe.scheduler = getattr(diffusers, name).from_config(before.config)
        return tiny

    yield swap
    tiny.pipe.scheduler = before


@dataclass(frozen=True)
class Momentum(Guidance):
    """The difference of the branches, averaged over the steps."""

    scale: float = 3.0

    def branches(self, model):
        return CFG(2.0).branches(model)

    def combine(self, outputs: Mapping[str, Tensor], context, memory):
        new = outputs["cond"] - outputs["uncond"]
        mean = 0.5 * memory["mean"] + 0.5 * new if memory else new
        return Combined(outputs["uncond"] + self.scale * mean, memory={"mean": mean})


def test_memory_goes_on_from_a_state_and_is_sliced_with_its_rows(tiny):
    whole = final(tiny, steps=4, guidance=Momentum())
    run = tiny.sample(PROMPTS, seeds=SEEDS, steps=4, guidance=Momentum())
    with torch.no_grad():
        middle = [next(run) for _ in range(2)][-1].sampler_state()
    assert middle.memory["mean"].shape == middle.latents.shape
    for row in (0, 1):
        part = final(
            tiny, [PROMPTS[row]], [SEEDS[row]], steps=4, guidance=Momentum(), start=middle.rows([row])
        )
        torch.testing.assert_close(part.latents[0], whole.latents[row], rtol=1e-4, atol=1e-5)
    joined = SamplerState.join([middle.rows([1]), middle.rows([0])])
    assert torch.equal(joined.memory["mean"], middle.memory["mean"][[1, 0]])
    forgetful = final(
        tiny, steps=4, guidance=Momentum(), start=SamplerState(*list(vars(middle).values())[:4])
    )
    assert not torch.allclose(forgetful.latents, whole.latents, atol=1e-4)


def test_a_sweep_that_starts_in_the_middle_has_the_memory_of_the_plain_run(tiny):
    runs = [SweepRun(p, s, (scale(MID, 2.0, When({2, 3})),)) for p in PROMPTS for s in SEEDS]
    swept = sweep(tiny, runs, steps=4, guidance=Momentum(), batch=3)
    for run, latents in zip(runs, swept.latents, strict=True):
        alone = final(
            tiny, [run.prompt], [run.seed], steps=4, guidance=Momentum(), interventions=run.interventions
        )
        torch.testing.assert_close(latents, alone.latents[0], rtol=1e-4, atol=1e-5)
    assert swept.rows == 4 * 2 * 2 + 4 * 2 * 2  # plain runs up to where the others begin, then these


@dataclass(frozen=True)
class FirstSteps(CFG):
    """Guidance at the first steps alone."""

    until: int = 2

    def active(self, step, memory):
        return None if step.index < self.until else ("cond",)


def test_branches_that_are_not_needed_cost_nothing(tiny):
    with torch.no_grad():
        states = list(tiny.sample(PROMPTS, seeds=SEEDS, steps=4, guidance=FirstSteps(4.0)))
    assert [s.rows for s in states] == [4, 4, 2, 2] and states[-1].uncond is None
    with torch.no_grad():
        plain = next(tiny.sample(PROMPTS, seeds=SEEDS, steps=4, guidance=4.0))
    assert torch.equal(states[0].latents, plain.latents)


def test_a_branch_of_another_network(tiny):
    """Its own weights, the same arguments; hooks on the denoiser do not act there."""
    other = load(tiny_sd(seed=1)).pipe.unet

    @dataclass(frozen=True)
    class Against(Guidance):
        def branches(self, model):
            return (GuidanceBranch("cond"), GuidanceBranch("other", network=other))

        def combine(self, outputs, context, memory):
            return 2 * outputs["cond"] - outputs["other"]

    state = final(tiny, guidance=Against(), steps=1)
    with torch.no_grad():
        prompts = tiny.encode(PROMPTS)
        tiny.pipe.unet, mine = other, tiny.pipe.unet
        try:
            expected = tiny.denoise(state.model_input, state.step, prompts)
        finally:
            tiny.pipe.unet = mine
    assert torch.equal(state.outputs["other"], expected)
    watched = trace(tiny, PROMPTS, seeds=SEEDS, steps=1, guidance=Against(), sites=MID)
    assert [line.rows for line in watched.account] == [2]


def test_branches_may_read_texts_of_their_own(tiny):
    @dataclass(frozen=True)
    class Both(Guidance):
        def branches(self, model):
            return (GuidanceBranch("cond"), GuidanceBranch("also", ["a blue bird", "a fish"]))

        def combine(self, outputs, context, memory):
            return (outputs["cond"] + outputs["also"]) / 2

    state = final(tiny, guidance=Both(), steps=1)
    with torch.no_grad():
        also = tiny.denoise(state.model_input, state.step, ["a blue bird", "a fish"])
    torch.testing.assert_close(state.outputs["also"], also)


def test_negative_prompts_one_a_sample(tiny):
    both = final(tiny, guidance=4.0, negative=["a dog", "a fish"])
    for i, negative in enumerate(("a dog", "a fish")):
        alone = final(tiny, [PROMPTS[i]], [SEEDS[i]], guidance=4.0, negative=negative)
        torch.testing.assert_close(both.latents[i], alone.latents[0], rtol=1e-4, atol=1e-5)


def test_a_negative_prompt_that_cannot_act_is_refused(tiny):
    with pytest.raises(ValueError, match=r"negative prompt 'dog' cannot act: .* set guidance above 1"):
        final(tiny, guidance=1.0, negative="dog")
    flux = opened("flux-dev")
    with pytest.raises(ValueError, match="cannot act.*true_scale"):
        final(flux, guidance=3.5, negative="dog")
    with pytest.raises(ValueError, match="reads 3 prompts for 2 samples"):
        final(tiny, guidance=4.0, negative=["a", "b", "c"])


@pytest.mark.parametrize("wrong", [-1.0, float("nan"), float("inf")])
def test_scales_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match=r"guidance is .*; it is a number from 0 up"):
        CFG(wrong)
    with pytest.raises(ValueError, match=r"guidance is .*; it is a number from 0 up"):
        CFG(1.0, true_scale=wrong)


def test_the_true_scale_counts_where_the_other_one_is_told(tiny):
    assert CFG(4.0, true_scale=1.0).acting(tiny) == 4.0 and CFG(1.0, true_scale=4.0).acting(tiny) == 1.0
    flux = opened("flux-dev")
    assert CFG(4.0).acting(flux) == 1.0 and CFG(1.0, true_scale=4.0).acting(flux) == 4.0
    assert CFG(4.0).told_scale == 4.0 and CFG(4.0).acting(opened("ddpm")) == 1.0


def test_branches_have_names_of_their_own_and_one_is_the_conditional():
    cond, other = GuidanceBranch("cond"), GuidanceBranch("other")
    assert names((other, cond)) == ("other", "cond")
    for wrong in ((cond, cond), (other,), ()):
        with pytest.raises(ValueError, match="each needs a name of its own, and one is 'cond'"):
            names(wrong)


def test_rows_at_several_steps_have_no_step_together(tiny):
    a, b = tiny.steps(2)
    assert GuidanceContext(tiny, (b, b), tiny.noise([0, 1]), ()).step is b
    with pytest.raises(ValueError, match=r"rows are at 2 different steps; use context\.steps"):
        _ = GuidanceContext(tiny, (a, b), tiny.noise([0, 1]), ()).step
