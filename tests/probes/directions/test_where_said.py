"""What acts for some prompts alone leaves the others to the bit."""

from __future__ import annotations

import pytest
import torch

from denoscope import Direction, trace
from denoscope.analysis import token_direction
from denoscope.probes import where_said

SITE = "unet/mid.attn.0.0/cross_attn.out"
RUN = {"steps": 2, "guidance": 3.0}


def latents(model, prompts, interventions=()):
    return trace(model, prompts, seeds=[4] * len(prompts), interventions=interventions, **RUN).latents


def test_it_acts_where_the_word_is_said_and_nowhere_else(tiny):
    d = Direction(SITE, torch.ones(16))
    prompts = ["a red cat", "a dog", "a Cat"]
    plain, always = latents(tiny, prompts), latents(tiny, prompts, [d.steer(2.0)])
    found = latents(tiny, prompts, where_said("cat", d.steer(2.0)))
    assert torch.equal(found[1], plain[1]) and not torch.equal(always[1], plain[1])
    torch.testing.assert_close(found[[0, 2]], always[[0, 2]], rtol=0, atol=1e-6)
    alone = latents(tiny, ["a red cat"], [d.steer(2.0)])
    torch.testing.assert_close(found[:1], alone, rtol=0, atol=1e-5)


def test_a_direction_of_a_subjects_rows_may_meet_prompts_without_it(tiny):
    red = token_direction(tiny, ["a red cat"], ["a cat"], "cat")
    with pytest.raises(LookupError, match="cat"):
        latents(tiny, ["a cat", "a dog"], [red.of("cat").steer(1.0)])
    found = latents(tiny, ["a cat", "a dog"], where_said("cat", red.of("cat").steer(1.0)))
    assert torch.equal(found[1:], latents(tiny, ["a cat", "a dog"])[1:])
    torch.testing.assert_close(found[:1], latents(tiny, ["a red cat"]), rtol=0, atol=1e-1)
    assert not torch.equal(found[0], latents(tiny, ["a cat"])[0])


def test_it_holds_for_all_branches_and_for_what_does_nothing(tiny):
    from denoscope import When

    d = Direction(SITE, torch.ones(16))
    both = where_said("cat", d.steer(1.0, When(branch=None)))  # the empty text holds no cat
    cond = where_said("cat", d.steer(1.0))
    assert torch.equal(latents(tiny, ["a cat"], both), latents(tiny, ["a cat"], cond))
    assert torch.equal(latents(tiny, ["a cat"], where_said("cat", d.steer(0.0))), latents(tiny, ["a cat"]))


def test_equal_ones_are_one_thing_and_others_are_not():
    d = Direction(SITE, torch.ones(16))
    (a,), (b,), (c,) = (where_said(w, d.steer(1.0)) for w in ("cat", "cat", "dog"))
    assert a.key == b.key != c.key and a.key != d.steer(1.0).key


def test_what_makes_no_sense_is_refused(tiny):
    d = Direction(SITE, torch.ones(16))
    with pytest.raises(ValueError, match="words is ''"):
        where_said("", d.steer(1.0))
    with pytest.raises(ValueError, match="for 0 interventions"):
        where_said("cat", [])
    text = Direction("text_encoder/layer.0/mlp.out", torch.ones(16))
    with pytest.raises(ValueError, match="is in a text encoder"):
        latents(tiny, ["a cat"], where_said("cat", text.steer(1.0)))
