"""The loop: what it refuses before anything runs, and in which order things act."""

from __future__ import annotations

from dataclasses import dataclass, replace

import diffusers
import pytest
import torch

from denoscope.models.guidance import Combined, Guidance, GuidanceBranch
from denoscope.models.load import load
from denoscope.models.places.account import AccountError
from denoscope.models.run.levels import Step
from denoscope.models.run.sampling import check_run
from denoscope.models.synthetic.tiny import tiny_sd
from denoscope.probes.intervene import Intervention, When, scale
from denoscope.probes.trace import trace

MID = "unet/mid.attn.0.0/resid.post"


def test_a_run_has_one_seed_for_each_of_its_prompts():
    check_run(2, [0, 1])
    with pytest.raises(ValueError, match="0 prompts but 0 seeds"):
        check_run(0, [])
    with pytest.raises(ValueError, match="1 prompts but 2 seeds; give one seed for each prompt"):
        check_run(1, [0, 1])
    with pytest.raises(TypeError, match=r"single number 3; give a list: \[3\]"):
        check_run(1, 3)


@torch.no_grad()
def test_what_a_start_knows_counts_for_its_first_step_alone(tiny):
    how = {"seeds": [0], "steps": 2, "guidance": 3.0}
    plain = list(tiny.sample(["a cat"], **how))
    start = replace(tiny.start([0], 2), known={"uncond": plain[0].outputs["uncond"]})
    states = list(tiny.sample(["a cat"], start=start, **how))
    assert [s.rows for s in states] == [1, 2]
    torch.testing.assert_close(states[-1].latents, plain[-1].latents)


def test_every_step_of_a_batch_is_checked(tiny):
    right = tiny.step_at(t=300)
    with pytest.raises(ValueError, match="contradicts itself"):
        tiny.denoise(tiny.noise([0, 1]), [right, Step(-1, 300, 2 * right.sigma)], ["a", "b"])


@dataclass(frozen=True)
class Edited(Guidance):
    """One branch, changed by itself, and a direction of its own."""

    change: Intervention

    def branches(self, model):
        return (GuidanceBranch("cond", interventions=(self.change,)),)

    def combine(self, outputs, context, memory):
        return Combined(outputs["cond"], direction=outputs["cond"])


@torch.no_grad()
def test_a_branch_is_changed_by_itself_before_it_is_changed_by_the_run(tiny):
    seen = []
    ones = Intervention(MID, lambda x, _: torch.ones_like(x))
    both = [scale(MID, 3.0), Intervention(MID, lambda x, _: seen.append(x.unique().tolist()))]
    list(tiny.sample(["a"], seeds=[0], steps=1, guidance=Edited(ones), interventions=both))
    x, step = tiny.noise([0]), tiny.step_at(t=300)
    one_call = tiny.denoise(x, step, ["a"], guidance=Edited(ones), interventions=both)
    assert seen == [[3.0], [3.0]]
    by_run = Intervention(MID, lambda x, _: torch.full_like(x, 3.0), When())
    torch.testing.assert_close(one_call, tiny.denoise(x, step, ["a"], interventions=[by_run]))


@torch.no_grad()
def test_what_never_acted_is_told_at_the_end_of_the_run(tiny):
    never = scale("text_encoder/layer.0/mlp.out", 2.0)
    run = tiny.sample(tiny.encode(["a"]), seeds=[0], steps=2, interventions=[never])
    assert [next(run).step.index for _ in range(2)] == [0, 1]
    with pytest.raises(AccountError, match="never acted"):
        next(run)


def test_a_direction_of_its_own_and_noise_that_is_drawn_are_refused_together(tiny):
    guidance = Edited(scale(MID, 2.0))
    with pytest.raises(ValueError, match=r"eta is 0\.5, but a guidance with a direction of its own"):
        list(tiny.sample(["a"], seeds=[0], steps=1, guidance=guidance, eta=0.5))


def test_a_later_start_tells_the_scheduler_where_it_is():
    model = load(tiny_sd())
    model.pipe.scheduler = diffusers.EulerDiscreteScheduler.from_config(model.scheduler.config)
    images = torch.zeros(1, 3, *model.size)
    assert model.start_at(images, 2, [0], steps=4).scheduler.begin_index == 2
    assert model.scheduler.begin_index is None


@torch.no_grad()
def test_a_start_of_another_run_is_refused(tiny):
    """It goes on with its own scheduler, so what is asked for would not be done."""
    begun = tiny.start([0], 4)
    with pytest.raises(ValueError, match=r"4 calls of the network with DDIM.* asked for \(6 with DDIM"):
        next(tiny.sample(["a cat"], seeds=[0], start=begun, steps=6))
    with pytest.raises(
        ValueError, match=r"latents are \(1, 4, 8, 8\), but .* size \(16, 32\) has .*4, 8, 16"
    ):
        next(tiny.sample(["a cat"], seeds=[0], start=begun, size=(16, 32)))
    other = load(tiny_sd())
    other.pipe.scheduler = diffusers.EulerDiscreteScheduler.from_config(
        tiny.scheduler.config, timestep_spacing="linspace"
    )
    with pytest.raises(ValueError, match="4 calls of the network with DDIM.* with EulerDiscreteScheduler"):
        next(other.sample(["a cat"], seeds=[0], start=begun, steps=4))
    with pytest.raises(ValueError, match=r"\(4 with Euler.*leave out steps, timesteps and sigmas"):
        next(other.sample(["a"], seeds=[0], start=other.start([0], 4), timesteps=[900, 600, 300, 1]))
    wide = tiny.sized((16, 32)).start([0], 4)
    plain = list(tiny.sample(["a cat"], seeds=[0], steps=4, size=(16, 32)))[-1].latents
    for more in ({}, {"steps": 4}):
        again = list(tiny.sample(["a cat"], seeds=[0], start=wide, size=(16, 32), **more))[-1].latents
        assert torch.equal(again, plain)


@torch.no_grad()
@pytest.mark.parametrize(
    ("when", "message"),
    [
        (When(steps={0, 9}), "steps {0, 9} reach past the run, which has steps 0 to 1"),
        (When(rows=(0, 3)), r"rows \(0, 3\) are not all among the run's samples 0 to 0"),
        (When(branch="uncond"), "branch 'uncond' does not exist in an unguided run"),
    ],
)
def test_what_would_act_only_in_part_is_refused(tiny, when, message):
    with pytest.raises(ValueError, match=message):
        next(tiny.sample(["a"], seeds=[0], steps=2, guidance=1.0, interventions=[scale(MID, 2.0, when)]))


@torch.no_grad()
def test_a_change_in_a_text_encoder_meets_all_its_samples_or_is_refused(tiny):
    """A prompt that is given encoded is not read again, and a trace would have rows of some samples alone."""
    site = "text_encoder/layer.0/mlp.out"
    mixed = [*tiny.encode(["a cat"]), "a dog"]
    how = {"seeds": [0, 1], "steps": 1}
    wrong = r"text_encoder/layer\.0/mlp\.out met samples \[1\] of branch 'cond', and not \[0\]"
    for run in (
        lambda: next(tiny.sample(mixed, interventions=[scale(site, 2.0)], **how)),
        lambda: trace(tiny, mixed, sites=site, **how),
        lambda: tiny.denoise(
            tiny.noise([0, 1]), tiny.step_at(t=300), mixed, interventions=[scale(site, 2.0)]
        ),
    ):
        with pytest.raises(AccountError, match=wrong):
            run()
    assert trace(tiny, mixed, sites=site, when=When(rows=(1,)), **how)[site].shape[0] == 1
    negative = {"negative": [*tiny.encode(["a red cat"]), "a cook"], "guidance": 3.0}
    assert trace(tiny, ["a cat", "a dog"], sites=site, **negative, **how)[site].shape[0] == 2
    with pytest.raises(AccountError, match=r"samples \[1\] of branch 'uncond', and not \[0\]"):
        trace(tiny, ["a cat", "a dog"], sites=site, when=When(branch="uncond"), **negative, **how)
