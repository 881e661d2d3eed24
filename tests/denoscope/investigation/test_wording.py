"""In which texts an edit is tried."""

from __future__ import annotations

import json

import pytest

from denoscope.investigation.wording import fit, same, template, wording
from denoscope.models import zoo


def test_the_word_is_taken_out_where_it_stands_alone():
    assert template("a Cook and a cookie", "cook") == "a {} and a cookie"
    assert template("一只猫在跑", "猫") == "一只{}在跑"


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("a cat, a cat", r"exactly once, and is there 2 times; say which is meant: 'cat:1', 'cat:2'"),
        ("a dog", "exactly once, and is there 0 times"),
        ("a {cat}", "braces"),
    ],
)
def test_a_prompt_without_exactly_one_place_is_refused(prompt, said):
    with pytest.raises(ValueError, match=said):
        template(prompt, "cat")


def test_which_of_several_is_asked_for_by_its_number():
    assert template("a cook and a Cook", "cook:2") == "a cook and a {}"
    words = wording("emoji", "a cook and a cook", "cook:2", "judge")
    assert (words.about, words.efficacy) == ("cook", ("a cook and a {}",))


@pytest.mark.parametrize(
    ("prompt", "about", "to", "own"),
    [
        ("a twemoji emoji of a red apple", "twemoji", "flat", "a {} emoji of a red apple"),
        ("a noto emoji of a man firefighter", "man", "woman", "a noto emoji of a {} firefighter"),
        ("a noto emoji of a woman cook with light skin", "light", "dark", None),
        ("a flat emoji of a red circle", "red", "blue", None),
    ],
)
def test_styles_genders_skins_and_colours_are_compared_with_their_like(prompt, about, to, own):
    words = wording("emoji", prompt, about, to)
    own = own or prompt.replace(about, "{}")
    world = json.loads((zoo.folder("emoji") / "world.json").read_text())
    kind = next(k for k in ("styles", "genders", "skins", "backgrounds") if about in world[k])
    assert set(words.peers) == set(world[kind]) and {about, to} <= set(words.peers)
    like = [w for w, (form,) in words.neighbourhood.items() if fit(form, "x") == fit(own, "x")]
    assert like and set(like) <= set(world[kind]) - {about, to}
    assert len(set(words.keep)) == len(words.keep)  # a text that is kept twice would weigh twice
    assert prompt not in words.keep


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


@pytest.mark.parametrize(
    ("prompt", "about", "to"),
    [
        ("a noto emoji of a woman firefighter", "firefighter", "cook"),
        ("a twemoji emoji of a red apple", "twemoji", "flat"),
        ("a noto emoji of a man firefighter", "man", "woman"),
    ],
)
def test_an_edit_is_never_solved_for_the_wordings_it_is_tested_in(prompt, about, to):
    words = wording("emoji", prompt, about, to)
    assert words.templates and not {*words.templates} & {*words.generality, *words.efficacy}
    asked = {q.prompt for q in words.evaluation_prompts()}
    assert not asked & {*words.keep, *(t.format(to) for t in words.templates)}
    assert words.fitting(lambda text: "monochrome" not in text).templates == tuple(
        t for t in words.templates if "monochrome" not in t
    )
