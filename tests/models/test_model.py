"""What every opened model can do: where the prompt is read, guidance that is not given, mixed prompts."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from denoscope.models.guidance import CFG, Guidance, GuidanceBranch
from denoscope.models.load import load
from denoscope.models.synthetic.tiny_families import tiny_flux
from tests.models.families.test_families import opened, shortened


@pytest.mark.parametrize(
    ("name", "part", "kind"),
    [
        ("sd", "unet", "cross_attn.probs"),
        ("pixart-alpha", "transformer", "cross_attn.probs"),
        ("sd3", "transformer", "joint_attn.probs"),
    ],
)
def test_the_prompt_is_read_at_attention_of_the_denoiser(name, part, kind):
    found = opened(name).reading_sites()
    assert found and {(s.component, s.kind) for s in found} == {(part, kind)}
    assert set(found) == set(opened(name).sites(f"{part}/**/{kind}"))


def test_a_model_that_reads_no_words_says_so():
    with pytest.raises(LookupError, match="reads no words while it paints: its unet has neither"):
        opened("ddpm").reading_sites()


@pytest.mark.parametrize(
    ("name", "site", "picture", "text"),
    [
        ("sd", "unet/mid.attn.0.0/cross_attn.probs", slice(None), 0),
        ("sd3", "transformer/block.0/joint_attn.probs", slice(None, -5), -5),
        ("flux-dev", "transformer/block.0/joint_attn.probs", slice(5, None), 0),
    ],
)
def test_whose_queries_are_the_pictures_and_where_the_text_begins(name, site, picture, text):
    model = opened(name)
    assert model.picture_and_text(model.sites(site)[0], 5) == (picture, text)


@dataclass(frozen=True)
class Two(Guidance):
    def branches(self, model):
        return (GuidanceBranch("cond"), GuidanceBranch("other", ["a"]))

    def combine(self, outputs, context, memory):
        return outputs["cond"]


def test_branches_are_counted_and_an_unconditional_one_is_asked_for(tiny):
    assert tiny.branch_names() == tiny.branch_names(4.0) == ("uncond", "cond") and tiny.uses_cfg()
    assert tiny.branch_names(1.0) == tiny.branch_names(0.0) == ("cond",) and not tiny.uses_cfg(1.0)
    assert tiny.branch_names(Two()) == ("cond", "other") and not tiny.uses_cfg(Two())
    assert opened("flux-dev").branch_names(CFG(1.0, true_scale=2.0)) == ("uncond", "cond")
    assert not opened("flux-dev").uses_cfg(4.0) and not opened("ddpm").uses_cfg(4.0)


@torch.no_grad()
def test_one_call_is_the_conditional_branch_told_the_models_own_guidance():
    model = shortened(load(tiny_flux()))
    x, step = model.noise([0]), model.step_at(t=500)
    plain = model.denoise(x, step, ["a cat"])
    model.true_cfg_scale = 3.0
    assert torch.equal(model.denoise(x, step, ["a cat"]), plain)
    assert torch.equal(
        model.denoise(x, step, ["a cat"], guidance=CFG(model.default_guidance, true_scale=1)), plain
    )
    assert not torch.equal(model.denoise(x, step, ["a cat"], guidance=CFG(1.0, true_scale=1)), plain)
    assert not torch.allclose(model.denoise(x, step, ["a cat"], guidance=model.default_guidance), plain)


@torch.no_grad()
def test_prompts_that_are_given_encoded_stay_in_their_place(tiny):
    cat, dog = tiny.encode(["a cat", "a dog"])
    found = tiny.prompts(["a fish", cat, "a bird", dog])
    assert [p.text for p in found] == ["a fish", "a cat", "a bird", "a dog"]
    assert found[1] is cat and found[3] is dog and tiny.prompts([dog]) == [dog]


@torch.no_grad()
def test_a_run_may_paint_another_size(tiny):
    state = next(tiny.sample(["a cat"], seeds=[0], steps=1, size=(16, 32)))
    assert state.latents.shape[-2:] == (8, 16) and tiny.size == (16, 16)
