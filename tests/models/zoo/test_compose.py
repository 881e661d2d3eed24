"""Composed pictures show what their captions say, where they say it."""

import random
import sys
from pathlib import Path

import pytest
import torch

from denoscope.models.zoo.training.data.compose import BACKGROUNDS, on_background, pair, random_scene, several

sys.path.insert(0, str(Path(__file__).parent))
from planted import COLOURS, pictures


def near(picture, colour):
    return (picture - torch.tensor(colour).view(3, 1, 1) / 255).abs().amax(0) < 0.02


def test_left_half_holds_the_first_subject():
    data = pictures()
    scene = pair(data.pixels[[0, 2]], data.records[0], data.records[2])
    assert scene.caption == "a noto emoji of a dog and a cat"
    left, right = scene.picture[..., :32], scene.picture[..., 32:]
    assert near(left, COLOURS["dog"]).sum() > 400 and not near(left, COLOURS["cat"]).any()
    assert near(right, COLOURS["cat"]).sum() > 400 and not near(right, COLOURS["dog"]).any()


@pytest.mark.parametrize(("number", "word"), [(2, "two"), (3, "three"), (4, "four")])
def test_counts(number, word):
    data = pictures()
    scene = several(data.pixels[:1], data.records[0], number)
    assert scene.caption == f"a noto emoji of {word} dogs"
    assert len(scene.boxes) == len(set(scene.boxes)) == number
    inside = torch.zeros(64, 64, dtype=torch.bool)
    for top, left, side in scene.boxes:
        box = near(scene.picture, COLOURS["dog"])[top : top + side, left : left + side]
        assert box.sum() > 400
        inside[top : top + side, left : left + side] = True
    assert not near(scene.picture, COLOURS["dog"])[~inside].any()


@pytest.mark.parametrize("colour", BACKGROUNDS)
def test_background_is_around_the_subject_and_the_subject_keeps_its_colour(colour):
    data = pictures()
    scene = on_background(data.pixels[2], data.records[2], colour)
    assert scene.caption.endswith(f"on {'an' if colour == 'orange' else 'a'} {colour} background")
    assert near(scene.picture, BACKGROUNDS[colour])[0].all()
    assert near(scene.picture, COLOURS["cat"])[32, 32]


def test_random_scenes_say_their_subject():
    data, rng = pictures(), random.Random(0)
    pairs = 0
    for _ in range(60):
        scene = random_scene(data, 0, 2, rng)
        assert "dog" in scene.caption
        assert scene.picture.shape == (3, 64, 64)
        assert scene.picture.min() >= 0 and scene.picture.max() <= 1
        if "a dog and a cat" in scene.caption:
            pairs += 1
            assert near(scene.picture[..., :32], COLOURS["dog"]).sum() > 400
    assert pairs > 3
