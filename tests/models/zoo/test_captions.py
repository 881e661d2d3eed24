"""Captions say what the record says, in plain words."""

import random

import pytest

from denoscope.models.zoo.training.data.captions import (
    caption,
    concept_of,
    phrase,
    plural,
    subject,
    with_article,
    worded,
)
from denoscope.models.zoo.training.data.pictures import Record
from denoscope.models.zoo.training.data.world import skin_name


def person(**changes):
    known = {"name": "woman firefighter", "concept": "firefighter", "style": "noto", "group": "people-body"}
    return Record(**{**known, "gender": "woman", "skin": "dark", **changes})


def test_full_caption():
    assert caption(person()) == "a noto emoji of a woman firefighter with dark skin"
    assert caption(person(skin="none")) == "a noto emoji of a woman firefighter with yellow skin"
    assert caption(person(skin="none", style="monochrome")) == "a monochrome emoji of a woman firefighter"


def test_gender_is_said_where_the_name_does_not_say_it():
    assert subject(person(name="detective", gender="man")) == "man detective"
    assert subject(person(name="princess")) == "princess"
    assert subject(person(), gender=False) == "firefighter"


def test_hair():
    record = person(name="woman: red hair", hair="red hair", skin="light")
    assert phrase(record) == "woman with red hair and light skin"
    assert concept_of(record.name) == "red hair"


@pytest.mark.parametrize(
    ("one", "many"),
    [
        ("dog", "dogs"),
        ("fox", "foxes"),
        ("cherry", "cherries"),
        ("tropical fish", "tropical fish"),
        ("bus", "buses"),
        ("ear of corn", "ears of corn"),
        ("smiling face with sunglasses", "smiling faces with sunglasses"),
        ("man with red hair", "men with red hair"),
        ("old woman", "old women"),
        ("wolf", "wolves"),
        ("thumbs up", "thumbs up"),
    ],
)
def test_plural(one, many):
    assert plural(one) == many


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("umbrella", "an umbrella"),
        ("unicorn", "a unicorn"),
        ("grinning face", "a grinning face"),
        ("smiling face with sunglasses", "a smiling face with sunglasses"),
        ("juggling", "juggling"),
        ("glasses", "glasses"),
        ("french fries", "french fries"),
        ("cherry blossom", "a cherry blossom"),
        ("santa claus with dark skin", "santa claus with dark skin"),
        ("orange", "an orange"),
    ],
)
def test_article(words, said):
    assert with_article(words) == said


def test_wordings_vary_but_always_name_the_subject():
    rng = random.Random(0)
    texts = {worded("a dog", "flat", rng) for _ in range(200)}
    assert len(texts) == 6
    assert all("a dog" in text for text in texts)


def test_default_skin_is_yellow_and_often_unsaid():
    rng = random.Random(0)
    texts = [phrase(person(skin="none"), rng) for _ in range(400)]
    assert skin_name(person(skin="none")) == "yellow"
    assert 0.3 < sum("yellow skin" in text for text in texts) / 400 < 0.6
    assert skin_name(Record(name="dog", concept="dog", style="flat", group="animals-nature")) is None
