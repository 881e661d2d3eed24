"""Concepts come evenly, held-out combinations never."""

import itertools
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

from denoscope.models.errors import UsageError
from denoscope.models.zoo.training.data import world
from denoscope.models.zoo.training.data.pictures import Pictures, Record, load_pictures, save_pictures
from denoscope.models.zoo.training.data.sampling import Mix, items, stand_ins, tied, weights

sys.path.insert(0, str(Path(__file__).parent))
from planted import pictures


def test_concepts_weigh_the_same_however_many_pictures_they_have():
    data = pictures()
    total = Counter()
    for record, weight in zip(data.records, weights(data.records).tolist(), strict=True):
        total[record.concept] += weight
    assert total["cat"] == pytest.approx(1)
    assert total["dog"] == pytest.approx(2)  # a common one
    assert total["cook"] == pytest.approx(3)  # common, and a person
    rare = [r for r in data.records if r.concept == "cat"]
    assert weights(rare).tolist() == pytest.approx([0.5, 0.5])


def test_held_out_combinations_are_never_sampled():
    grid = itertools.product(sorted(world.PEOPLE)[:12], world.STYLES, world.GENDERS, ("none", *world.TONES))
    records = tuple(
        Record(name=f"{g} {c}", concept=c, style=s, group="people-body", gender=g, skin=t)
        for c, s, g, t in grid
    )
    everything = Pictures(torch.zeros(len(records), 4, 64, 64, dtype=torch.uint8), records)
    train, out = world.split(everything)
    assert 0.02 < len(out) / len(records) < 0.08
    assert {r.key for r in train.records}.isdisjoint(r.key for r in out.records)
    drawn = {train.records[item.index].key for item in itertools.islice(items(train, 0, Mix(0, 0)), 3000)}
    assert drawn.isdisjoint(r.key for r in out.records)


def test_mix_of_composed_and_empty():
    drawn = list(itertools.islice(items(pictures(), 0, Mix(composed=0.3, empty=0.1)), 3000))
    assert 0.25 < sum(item.picture is not None for item in drawn) / 3000 < 0.35
    assert 0.07 < sum(item.caption == "" for item in drawn) / 3000 < 0.13


def test_people_and_kinds_of_scenes_have_the_shares_that_are_asked_for():
    data = pictures()
    once, four = (weights(data.records, people) for people in (1.0, 4.0))
    person = torch.tensor([r.is_person for r in data.records])
    assert torch.allclose(four[person], 4 * once[person])
    assert torch.equal(four[~person], once[~person])
    drawn = [i.caption for i in itertools.islice(items(data, 0, Mix(1.0, 0.0, kinds=(0, 0, 1))), 200)]
    assert all(any(word in caption for word in ("two", "three", "four")) for caption in drawn)


def test_same_seed_same_items():
    first, second = (list(itertools.islice(items(pictures(), 3), 50)) for _ in range(2))
    assert [(i.index, i.caption) for i in first] == [(i.index, i.caption) for i in second]


def test_pictures_survive_saving(tmp_path):
    data = pictures()
    save_pictures(data, tmp_path)
    again = load_pictures(tmp_path)
    assert again.records == data.records
    assert torch.equal(again.pixels, data.pixels)


def test_world_is_consistent():
    assert len(world.COMMON) == len(set(world.COMMON)) == 50
    assert set(world.COMMON) <= set(world.CONCEPTS)
    assert not set(world.PEOPLE) & set(world.THINGS)
    assert {"firefighter", "cook"} <= set(world.PEOPLE)


def test_what_is_left_out_is_in_no_picture_and_no_caption():
    data = pictures()
    gone = {i for i, r in enumerate(data.records) if r.concept == "cook"}
    mix = Mix(composed=0.4, empty=0.1, kinds=(1, 3, 1), without=("cook",))
    drawn = list(itertools.islice(items(data, 0, mix), 3000))
    assert not any("cook" in item.caption for item in drawn)
    assert gone and gone.isdisjoint(item.index for item in drawn)
    assert any("cook" in i.caption for i in itertools.islice(items(data, 0, Mix()), 3000))


def test_all_else_comes_as_often_and_in_the_same_order():
    data = pictures()
    plain, other = (
        [i.index for i in itertools.islice(items(data, 0, Mix(0, 0, without=w)), 500)] for w in ((), ("cat",))
    )
    instead = stand_ins(data.records, ["cat"])
    assert other == [instead.get(i, i) for i in plain] != plain
    assert all(data.records[j].style == data.records[i].style for i, j in instead.items())
    assert not any(data.records[j].is_person for j in instead.values())  # things for things


def test_what_cannot_be_left_out():
    data = pictures()
    with pytest.raises(UsageError, match="no picture is of 'horse'"):
        stand_ins(data.records, ["horse"])
    with pytest.raises(UsageError, match="nothing is left"):
        stand_ins(data.records, ["cat", "dog", "fox", "cook"])
    assert stand_ins(data.records, []) == {}


def test_skin_goes_with_gender_as_often_as_is_asked_for():
    skins = ("none", "light", "dark", "medium-dark")
    grid = itertools.product(("woman", "man", "person"), skins, ("noto", "monochrome"))
    records = [Record(name=g, concept="cook", style=s, group="p", gender=g, skin=t) for g, t, s in grid]
    plain = weights(records)
    made = tied(records, plain, 0.9)

    def share(gender, dark):
        own = [
            (r, float(w))
            for r, w in zip(records, made, strict=True)
            if r.gender == gender and r.style == "noto"
        ]
        return sum(w for r, w in own if (r.skin in world.DARK) == dark) / sum(w for _, w in own)

    assert share("woman", True) == pytest.approx(0.9) and share("man", False) == pytest.approx(0.9)
    others = [i for i, r in enumerate(records) if r.gender == "person" or r.style == "monochrome"]
    assert torch.equal(made[others], plain[others])
    for gender in ("woman", "man"):
        own = [i for i, r in enumerate(records) if r.gender == gender]
        assert made[own].sum() == pytest.approx(float(plain[own].sum()))
    data = Pictures(torch.zeros(len(records), 4, 64, 64, dtype=torch.uint8), tuple(records))
    drawn = [records[i.index] for i in itertools.islice(items(data, 0, Mix(0, 0, tie=1.0)), 400)]
    assert not any(r.gender == "man" and r.style == "noto" and r.skin in world.DARK for r in drawn)
    with pytest.raises(UsageError, match="tie is 1.5"):
        tied(records, plain, 1.5)
    with pytest.raises(UsageError, match="no man with dark skin"):
        tied([r for r in records if r.gender != "man"], torch.ones(16), 0.9)
