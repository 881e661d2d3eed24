"""The asymmetric step as a guidance."""

import pytest
import torch

from denoscope.guidance import CFG, Asymmetric
from denoscope.models.load import load
from denoscope.models.synthetic.tiny import tiny_ddim
from denoscope.probes.intervene import scale
from denoscope.probes.sweep.sweeping import SweepRun, sweep
from denoscope.probes.trace import trace

from denoscope import When  # isort: skip

MID = "unet/mid.attn.0.0/cross_attn.out"
RUN = {"prompts": ["a cat", "a dog"], "seeds": [0, 1], "steps": 4}


def test_where_nothing_acts_the_run_is_the_plain_one(tiny):
    for guidance in (1.0, 4.0):
        plain = trace(tiny, **RUN, guidance=guidance).latents
        same = trace(tiny, **RUN, guidance=Asymmetric(guidance)).latents
        torch.testing.assert_close(same, plain, rtol=1e-5, atol=1e-5)


def test_it_is_contrast_guidance_of_the_two_outputs(tiny):
    """In DDIM the direction's term moves with the plain output alone: the last step ends at x_0(edited)."""
    guidance = Asymmetric(CFG(4.0))
    edit = scale(MID, 3.0, When(branch="edited"))
    states = list(
        tiny.sample(RUN["prompts"], seeds=RUN["seeds"], steps=4, guidance=guidance, interventions=[edit])
    )
    assert set(states[0].outputs) == {"uncond", "cond", "edited"}
    assert not torch.equal(states[0].outputs["cond"], states[0].outputs["edited"])
    symmetric = trace(tiny, **RUN, guidance=4.0, interventions=[scale(MID, 3.0)]).latents
    assert not torch.allclose(states[-1].latents, symmetric)
    both = trace(tiny, **RUN, guidance=guidance, interventions=[scale(MID, 3.0, When(branch=None))])
    everywhere = trace(tiny, **RUN, guidance=4.0, interventions=[scale(MID, 3.0, When(branch=None))])
    torch.testing.assert_close(both.latents, everywhere.latents, rtol=1e-4, atol=1e-4)


def test_at_other_steps_the_edited_branch_is_not_computed(tiny):
    edit = scale(MID, 3.0, When([1], "edited"))
    run = {"guidance": Asymmetric(steps=[1]), "interventions": [edit]}
    rows = [s.rows for s in tiny.sample(RUN["prompts"], seeds=RUN["seeds"], steps=4, **run)]
    assert rows == [2, 4, 2, 2]
    some = trace(tiny, **RUN, **run).latents
    all_steps = trace(tiny, **RUN, guidance=Asymmetric(), interventions=[edit]).latents
    torch.testing.assert_close(some, all_steps, rtol=1e-4, atol=1e-5)


def test_each_row_of_a_sweep_has_its_own_edit():
    model = load(tiny_ddim())
    site = "unet/mid.res.1/resid.post"
    runs = [
        SweepRun("", s, (scale(site, f, When(branch="edited")),) if f else ())
        for s in (0, 1)
        for f in (0, 2.0)
    ]
    swept = sweep(model, runs, steps=3, guidance=Asymmetric()).latents
    plain = trace(model, seeds=[0, 1], steps=3).latents
    torch.testing.assert_close(swept[::2], plain, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(swept[1::2], plain)


def test_what_it_cannot_be_is_refused(tiny):
    for steps in ([], [-1]):
        with pytest.raises(ValueError, match="it holds indices 0, 1"):
            Asymmetric(steps=steps)
    with pytest.raises(TypeError, match="guidance is 'strong'"):
        Asymmetric("strong")
    with pytest.raises(ValueError, match="the run has 4: 0 to 3"):
        trace(tiny, **RUN, guidance=Asymmetric(steps=[4]))
    with pytest.raises(ValueError, match="the run has no branch 'edited'"):
        trace(tiny, **RUN, interventions=[scale(MID, 2.0, When(branch="edited"))])
    with pytest.raises(ValueError, match="eta is 0.5"):
        trace(tiny, **RUN, guidance=Asymmetric(), eta=0.5)
