"""What each branch of a guidance reads, and which rows of which call are its own."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch

from denoscope.models.guidance import CFG, Combined, Guidance, GuidanceBranch
from denoscope.models.run.branches import guided, read
from denoscope.models.run.context import When
from denoscope.probes.intervene import Intervention
from tests.models.families.test_families import opened

PROMPTS, SEEDS = ["a cat", "a red dog"], [0, 1]
MID = "unet/mid.attn.0.0/resid.post"
COND, UNCOND = GuidanceBranch("cond"), GuidanceBranch("uncond", "negative_prompts")
ALSO = GuidanceBranch("also", ["a fish", "a bird"])


@dataclass(frozen=True)
class Sum(Guidance):
    """All branches, added up."""

    given: tuple[GuidanceBranch, ...]

    def branches(self, model):
        return self.given

    def combine(self, outputs, context, memory):
        return sum(outputs.values())


# what they read -------------------------------------------------------------------------------------------


@torch.no_grad()
def test_texts_of_a_branchs_own_are_read_as_the_prompts_and_negative_ones_to_the_last_layer():
    model = opened("sd")  # transformers leaves hooks of its own where hidden states were asked for
    found = read(model, Sum((UNCOND, COND, ALSO)), PROMPTS, "a dog", text={"clip_skip": 1}).prompts
    for name, texts, skip in (
        ("cond", PROMPTS, 1),
        ("also", ["a fish", "a bird"], 1),
        ("uncond", ["a dog"] * 2, None),
    ):
        for prompt, expected in zip(found[name], model.encode(texts, clip_skip=skip), strict=True):
            torch.testing.assert_close(prompt.embeds, expected.embeds)


@torch.no_grad()
def test_sizes_are_told_to_every_branch_and_come_before_those_of_encoded_prompts():
    model = opened("sdxl")
    told, negative = {"original_size": (8, 9)}, {"original_size": (3, 4), "target_size": (5, 6)}
    own = [replace(p, sizes={"original_size": (1, 1), "target_size": (2, 2)}) for p in model.encode(PROMPTS)]
    guidance = Sum((UNCOND, COND, ALSO))
    found = read(model, guidance, own, sizes=(told, negative)).prompts
    assert [p.sizes for p in found["cond"]] == [{"original_size": (8, 9), "target_size": (2, 2)}] * 2
    assert [p.sizes for p in found["also"]] == [told] * 2
    assert [p.sizes for p in found["uncond"]] == [negative] * 2
    assert [p.sizes for p in read(model, guidance, own).prompts["cond"]] == [p.sizes for p in own]


@torch.no_grad()
def test_prompts_of_one_call_are_as_long_as_each_other(tiny):
    long = tiny.encode(["a fish", "a bird"], long_prompts=2)
    other = replace(ALSO, reads=long, network=tiny.denoiser)
    assert read(tiny, Sum((COND, other)), PROMPTS).prompts["also"] == long
    with pytest.raises(ValueError, match=r"have \[32, 64\] tokens; .* with long_prompts=2"):
        read(tiny, Sum((COND, replace(other, network=None))), PROMPTS)


@torch.no_grad()
def test_negative_texts_count_for_the_number_of_chunks(tiny):
    text = {"long_prompts": "chunks"}
    found = read(tiny, CFG(4.0), PROMPTS, "cat " * 40, text=text).prompts
    assert {len(p.embeds) for some in found.values() for p in some} == {64}


def test_no_negative_text_is_no_negative_prompt(tiny):
    for nothing in ("", ["", ""]):
        assert set(read(tiny, CFG(1.0), PROMPTS, nothing).prompts) == {"cond"}
    for something in ("a", ["", "a"], tiny.encode(["", ""])):
        with pytest.raises(ValueError, match="cannot act"):
            read(tiny, CFG(1.0), PROMPTS, something)


# which rows are theirs ------------------------------------------------------------------------------------


def looked(model, guidance, site=MID, **settings):
    """The branches that a place met, call by call, and the state after a step."""
    seen = []
    look = Intervention(site, lambda x, c: seen.append((c.branch, len(x))), When(branch=None))
    with torch.no_grad():
        state = next(
            model.sample(PROMPTS, seeds=SEEDS, steps=2, guidance=guidance, interventions=[look], **settings)
        )
    return seen, state


def test_branches_lie_in_the_batch_as_the_pipeline_has_them_and_then_the_others(tiny):
    seen, state = looked(tiny, Sum((ALSO, COND, UNCOND)))
    assert seen == [("uncond", 2), ("cond", 2), ("also", 2)] and state.rows == 6


def test_where_branches_are_passes_the_conditional_one_is_first():
    model = opened("flux-dev")
    site = model.sites("transformer/block.0/mlp.out@img")[0]
    seen, state = looked(model, CFG(3.5, true_scale=2.0), site)
    assert seen == [("cond", 2), ("uncond", 2)] and state.rows == 4


def test_places_of_the_denoiser_are_not_looked_for_in_another_network(tiny):
    other = replace(ALSO, network=torch.nn.Linear(1, 1))
    other.network.forward = lambda x, *_, **__: (torch.zeros_like(x),)
    seen, state = looked(tiny, Sum((COND, other)))
    assert seen == [("cond", 2)] and state.rows == 4
    assert [line.branches for line in state.account] == [("cond",)]
    assert torch.equal(state.output, state.outputs["cond"]) and not state.outputs["also"].any()


@torch.no_grad()
def test_what_is_known_is_not_computed(tiny):
    x, step = tiny.noise(SEEDS), tiny.steps(2)[0]
    reading = read(tiny, CFG(4.0), PROMPTS)
    whole = guided(tiny, x, (step, step), reading)
    known = {"uncond": torch.ones_like(x), "unneeded": x}
    part = guided(tiny, x, (step, step), reading, known=known)
    assert (whole.rows, part.rows) == (4, 2) and set(part.outputs) == {"uncond", "cond"}
    assert part.outputs["uncond"] is known["uncond"]
    torch.testing.assert_close(part.outputs["cond"], whole.outputs["cond"])
    cond = part.outputs["cond"]
    torch.testing.assert_close(part.combined.output, 1 + 4.0 * (cond - 1))


@dataclass(frozen=True)
class Once(CFG):
    """Remembers the first difference of the branches, and needs one branch from then on."""

    def active(self, step, memory):
        return ("cond",) if memory else None

    def combine(self, outputs, context, memory):
        if memory:
            return outputs["cond"] + memory["difference"]
        difference = outputs["cond"] - outputs["uncond"]
        return Combined(outputs["cond"] + difference, memory={"difference": difference})


@torch.no_grad()
def test_memory_stays_where_a_guidance_leaves_it_and_tells_which_branches_are_needed(tiny):
    states = list(tiny.sample(PROMPTS, seeds=SEEDS, steps=3, guidance=Once(2.0)))
    assert [s.rows for s in states] == [4, 2, 2]
    first, *_, last = (s.sampler_state().memory["difference"] for s in states)
    assert torch.equal(first, last) and first.any()
