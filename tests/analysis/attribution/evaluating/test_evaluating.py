"""Maps scored where the layout is known: the truth is found, noise is not, thresholds have not seen it."""

import numpy as np
import pytest
import torch

from denoscope.analysis import (
    MapEvaluation,
    Placed,
    SanityChecks,
    evaluate_maps,
    sanity_checks,
    score_maps,
    with_other_words,
    word_maps,
)
from denoscope.analysis.attribution.evaluating.placed import THRESHOLDS, measured
from denoscope.models import zoo
from denoscope.models.store.fingerprint import fingerprint
from denoscope.models.synthetic.random_weights import randomised
from denoscope.probes.trace import trace

WORDS = ("cat", "dog", "house", "red", "blue", "tree")


@pytest.fixture(scope="module")
def scenes():
    """Six pictures of 16 x 16 with two things each, at places of their own."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for i in range(6):
        masks = torch.zeros(2, 16, 16, dtype=torch.bool)
        masks[0, i : i + 4, :6] = True
        masks[1, 8:14, 8 : 10 + i] = True
        words = (WORDS[i], WORDS[(i + 2) % 6])
        picture = torch.rand(3, 16, 16, generator=generator)
        made.append(Placed(picture, f"a {words[0]} and a {words[1]}", words, masks))
    return made


def truth(model, scenes):
    return [s.masks.float() for s in scenes]


def flat(model, scenes):
    return [torch.ones(2, 4, 4) for _ in scenes]


def noise(model, scenes):
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(2, 16, 16, generator=generator) for _ in scenes]


def read(model, scenes):
    maps = []
    for i, s in enumerate(scenes):
        found = word_maps(model, [s.caption], s.words, seeds=[i], images=s.picture[None])
        maps.append(torch.from_numpy(found.maps.values[0]))
    return maps


def test_measures_equal_their_definitions():
    heat, mask = np.array([[0.0, 1.0], [0.5, 0.9]]), np.array([[False, True], [True, False]])
    curve, hit, precision = measured(heat, mask)
    both = [1 + (t < 0.5) for t in THRESHOLDS]
    either = [len({(0, 1), (1, 0)} | ({(1, 1)} if t < 0.9 else set())) for t in THRESHOLDS]
    np.testing.assert_allclose(curve, np.array(both) / np.array(either))
    assert hit == 1.0
    assert precision == pytest.approx((1 / 1 + 2 / 3) / 2)
    _, shared, chance = measured(np.ones((2, 2)), mask)
    assert shared == 0.5 and chance == 0.5


def test_the_truth_is_found_and_a_flat_map_is_chance(tiny, scenes, tmp_path):
    found = evaluate_maps(tiny, scenes, {"truth": truth, "flat": flat, "noise": noise})
    table = found.to_frame().set_index(["method", "measure"])["mean"]
    assert table["truth"].tolist() == [1, 1, 1]
    share = np.mean([float(s.masks.float().mean()) for s in scenes])
    assert table["flat", "hit"] == pytest.approx(share) and table["flat", "precision"] == pytest.approx(share)
    assert table["flat", "iou"] == 0 and table["noise", "iou"] < 0.4
    found.save(tmp_path / "maps.zarr")
    again = MapEvaluation.load(tmp_path / "maps.zarr")
    assert again.to_frame().equals(found.to_frame()) and again.data.attrs["scenes"] == 6
    assert "best by average precision: truth" in repr(found) and "<table" in found._repr_html_()
    assert found.plot().data


def test_a_threshold_is_fixed_on_the_pictures_that_it_is_not_tried_on(scenes):
    """Even pictures are best cut low, odd ones high: each half is cut where the other one is best."""
    maps = []
    for i, s in enumerate(scenes):
        ring = torch.zeros(2, 16, 16)
        ring[s.masks] = 1.0 if i % 2 else 0.45
        ring[:, 0, 0], ring[:, 15, :] = 1.0, 0.5 if i % 2 else 0.0
        maps.append(ring)
    found = score_maps({"ring": maps}, scenes).data
    even, odd = found["threshold"].values[0]
    assert even > 0.45 > odd  # for even pictures: what is best for odd ones, and the other way round
    assert found["iou"].values[0, ::2].max() < 0.1  # a threshold that had seen them would have found them


def test_order_of_maps_does_not_matter_and_scale_neither(scenes):
    maps = noise(None, scenes)
    one = score_maps({"a": maps}, scenes).data
    other = score_maps({"a": [3 * m - 7 for m in maps]}, scenes).data
    for name in ("hit", "iou", "precision"):
        np.testing.assert_allclose(one[name].values, other[name].values)


def test_what_should_destroy_a_map_does_or_is_told(tiny, scenes, tmp_path):
    before = fingerprint(tiny)
    found = sanity_checks(tiny, scenes[:4], {"read": read, "fixed": lambda m, s: noise(m, scenes)[: len(s)]})
    mean = found.to_frame().set_index(["method", "check"])["mean"]
    assert mean["fixed", "weights"] == pytest.approx(1) and mean["fixed", "words"] == pytest.approx(1)
    assert mean["read", "weights"] < 0.9
    assert fingerprint(tiny) == before
    found.save(tmp_path / "checks.zarr")
    again = SanityChecks.load(tmp_path / "checks.zarr").data["likeness"]
    np.testing.assert_array_equal(again.values, found.data["likeness"].values)
    assert "likeness after other weights" in repr(found) and found.plot().data and found._repr_html_()
    flats = sanity_checks(tiny, scenes, {"flat": flat})
    assert flats.data["likeness"].isnull().all()  # the same everywhere is alike to nothing


def test_a_randomised_model_is_another_and_leaves_the_first(tiny):
    one, again, other = randomised(tiny, 1), randomised(tiny, 1), randomised(tiny, 2)
    prints = [fingerprint(m) for m in (tiny, one, again, other)]
    assert prints[1] == prints[2] and len(set(prints)) == 3
    for name, weight in one.pipe.unet.named_parameters():
        mine = dict(tiny.pipe.unet.named_parameters())[name]
        assert torch.equal(weight.flatten().sort().values, mine.flatten().sort().values)
    runs = [trace(m, ["a cat"], seeds=[0], steps=2) for m in (tiny, one)]
    assert not torch.equal(runs[0].latents, runs[1].latents)


def test_other_words_stand_in_the_caption_in_their_place(scenes):
    other = with_other_words(scenes, seed=3)
    for a, b in zip(scenes, other, strict=True):
        assert not set(a.words) & set(b.words)
        assert b.caption == f"a {b.words[0]} and a {b.words[1]}"
        assert torch.equal(a.masks, b.masks) and torch.equal(a.picture, b.picture)
    assert [s.words for s in with_other_words(scenes, seed=3)] == [s.words for s in other]


def test_scenes_of_the_evaluation_data_are_placed():
    for scene in zoo.data().scenes:
        placed = Placed.of(scene)
        assert len(set(placed.words)) == len(placed.words)
        assert torch.equal(placed.masks.any(0), scene.masks.any(0))


@pytest.mark.parametrize(
    ("methods", "error", "message"),
    [
        ({}, ValueError, "methods is empty"),
        ({"x": lambda m, s: []}, ValueError, "maps of 0 pictures"),
        ({"x": lambda m, s: [torch.rand(1, 4, 4)] * 6}, TypeError, "of its 2 words"),
        ({"x": lambda m, s: [None] * 6}, TypeError, "it is a Tensor"),
        ({"x": lambda m, s: [torch.full((2, 4, 4), float("nan"))] * 6}, ValueError, "NaN"),
    ],
)
def test_maps_that_cannot_be_scored_are_named(tiny, scenes, methods, error, message):
    with pytest.raises(error, match=message):
        evaluate_maps(tiny, scenes, methods)


@pytest.mark.misshapen
def test_pictures_that_do_not_fit_are_named(tiny, scenes):
    picture, masks = scenes[0].picture, scenes[0].masks
    with pytest.raises(ValueError, match="one for each word"):
        Placed(picture, "a cat", ("cat",), masks)
    with pytest.raises(TypeError, match="masks > 0.5"):
        Placed(picture, "a cat", ("cat",), masks[:1].float())
    with pytest.raises(ValueError, match="'dog' is not in the caption"):
        Placed(picture, "a cat", ("dog",), masks[:1])
    with pytest.raises(ValueError, match="is empty"):
        Placed(picture, "a cat", ("cat",), torch.zeros(1, 16, 16, dtype=torch.bool))
    with pytest.raises(ValueError, match="2 pictures"):
        evaluate_maps(tiny, scenes[:2], {"truth": truth})
    with pytest.raises(ValueError, match="give more pictures"):
        with_other_words(scenes[:1])
