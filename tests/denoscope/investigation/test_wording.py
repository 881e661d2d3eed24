"""In which texts an edit is tried."""

from __future__ import annotations

import pytest

from denoscope.investigation.wording import fit, same, template, wording


def test_the_word_is_taken_out_where_it_stands_alone():
    assert template("a Cook and a cookie", "cook") == "a {} and a cookie"
    assert template("一只猫在跑", "猫") == "一只{}在跑"


@pytest.mark.parametrize("prompt", ["a cat, a cat", "a dog", "a {cat}"])
def test_a_prompt_without_exactly_one_place_is_refused(prompt):
    with pytest.raises(ValueError, match="exactly once"):
        template(prompt, "cat")


def test_articles_fit():
    assert fit("an emoji of a {}", "apple").format("apple") == "an emoji of an apple"
    assert fit("a noto emoji of a woman {}", "artist").format("artist") == "a noto emoji of a woman artist"


def test_people_are_compared_with_people_and_then_with_things():
    words = wording("emoji", "a noto emoji of a woman firefighter", "firefighter", "cook")
    assert words.efficacy == ("a noto emoji of a woman {}",)
    assert (
        "a noto emoji of a man {}" in words.generality and "a twemoji emoji of a woman {}" in words.generality
    )
    own = [w for w, ts in words.neighbourhood.items() if ts == words.efficacy]
    assert len(own) == 4 and len(words.neighbourhood) == 6


def test_texts_that_a_model_cannot_read_are_left_out_but_never_the_edited_one():
    words = wording("emoji", "a noto emoji of a woman firefighter", "firefighter", "cook")
    few = words.fitting(lambda text: len(text) <= len("a flat emoji of a woman firefighter"))
    assert few.generality == ("a noto emoji of a man {}", "a flat emoji of a woman {}")
    assert few.efficacy == words.efficacy and 0 < len(few.keep) < len(words.keep)
    none = words.fitting(lambda _: False)
    assert (none.generality, none.neighbourhood, none.keep) == ((), {}, ()) and len(
        none.evaluation_prompts()
    ) == 1


@pytest.mark.parametrize(
    ("model", "prompt", "about", "to"),
    [
        ("emoji", "a noto emoji of a woman firefighter", "firefighter", "cook"),
        ("emoji", "a flat emoji of a red heart", "red heart", "blue heart"),
        ("some/model", "a photo of a dog", "dog", "cat"),
    ],
)
def test_the_edit_is_never_tested_on_what_it_was_told_to_keep(model, prompt, about, to):
    words = wording(model, prompt, about, to)
    asked = {q.prompt for q in words.evaluation_prompts()}
    assert words.keep and not asked & set(words.keep)
    assert not any({*same(about), *same(to)} & {*same(w)} for w in words.neighbourhood)
    assert prompt in asked and prompt not in words.keep
