"""What is compared, checked before any work is done."""

from __future__ import annotations

import pytest

from denoscope.bench import Plan, embedded_concepts
from denoscope.bench.trial import parts_of
from denoscope.models.load import load
from denoscope.models.synthetic.tiny import tiny_ddpm


def test_by_default_it_is_all_that_ships(emoji):
    plan = Plan.of(emoji)
    assert (len(plan.methods), len(plan.concepts), len(plan.seeds), plan.sizes) == (10, 50, 8, [10, 50])
    assert plan.guidance == emoji.default_guidance
    assert plan.judged_by["name"] == "the embedded judge"


def test_concepts_by_number_word_and_kind(emoji):
    assert len(Plan.of(emoji, concepts=7).concepts) == 7
    assert Plan.of(emoji, concepts=7).sizes == []
    assert [c.said for c in Plan.of(emoji, concepts=["fox", "style"]).concepts] == [
        "fox", "flat", "glossy", "monochrome",
    ]  # fmt: skip


def test_a_first_look_has_one_concept_of_each_kind(emoji):
    plan = Plan.of(emoji, quick=True)
    assert len({c.kind for c in plan.concepts}) == len(plan.concepts) == 7
    assert (plan.seeds, plan.steps, plan.many) == ((0, 1), 5, (3,))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"concepts": 0}, "concepts is 0; there are 1 to 50"),
        ({"concepts": 51}, "concepts is 51; there are 1 to 50"),
        ({"concepts": ["foxx"]}, r"no concept is called \['foxx'\]; name words .* or kinds: profession"),
        ({"concepts": [embedded_concepts()[0], "fox"]}, "names and Concepts"),
        ({"concepts": [embedded_concepts()[0]] * 2}, "each once"),
        ({"seeds": []}, "seeds is"),
        ({"seeds": [1, 1]}, "seeds is"),
        ({"steps": 0}, "steps is 0"),
        ({"many": [1]}, "many is"),
    ],
)
def test_what_cannot_be_compared(emoji, more, said):
    with pytest.raises(ValueError, match=said):
        Plan.of(emoji, **more)


def test_a_model_of_a_users_own_needs_concepts_and_a_judge(tiny, concepts, judge):
    with pytest.raises(ValueError, match="give concepts= a CSV file"):
        Plan.of(tiny, judge=judge)
    with pytest.raises(ValueError, match="no judge ships with StableDiffusionPipeline; give judge="):
        Plan.of(tiny, concepts=concepts)
    with pytest.raises(ValueError, match="reads no text"):
        Plan.of(load(tiny_ddpm()), concepts=concepts, judge=judge)


def test_layers_found_on_other_concepts_are_another_trial(setup, concepts):
    keys = [
        {n: parts_of(plan, m, concepts[0]) for n, m in zip(("found", "random"), plan.methods, strict=True)}
        for plan in (
            Plan.of(**{**setup, "concepts": some}, methods=["locoedit", "locoedit/random"])
            for some in (concepts, concepts[:1])
        )
    ]
    assert keys[0]["found"] != keys[1]["found"] and keys[0]["random"] == keys[1]["random"]
