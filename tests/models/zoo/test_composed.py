"""Scores of composed scenes: right for the real ones, wrong for others, and the ground is seen."""

import sys
from pathlib import Path

import pytest
import torch

from denoscope.models.zoo.training.data.compose import BACKGROUNDS
from denoscope.models.zoo.training.data.pictures import Pictures, Record
from denoscope.models.zoo.training.evaluate import composed

sys.path.insert(0, str(Path(__file__).parent))
from planted import COLOURS, disc


class ByColour:
    """A judge that knows concepts by the colour in the middle of a picture."""

    def labels(self, attribute):
        return {"concept": tuple(COLOURS)}[attribute]

    def probabilities(self, pictures, attribute):
        middle = pictures[:, :, 24:40, 24:40].mean((2, 3))
        table = torch.tensor([COLOURS[n] for n in self.labels(attribute)]) / 255
        return (-50 * (middle[:, None] - table[None]).square().sum(-1)).softmax(1)


@pytest.fixture
def pictures():
    records = tuple(Record(name=n, concept=n, style="noto", group="objects") for n in COLOURS)
    return Pictures(torch.stack([disc(c) for c in COLOURS.values()]), records)


def test_real_scenes_are_right_and_white_pictures_wrong(pictures):
    asked = composed.scenes(pictures, 24)
    made = torch.ones(24, 3, 64, 64)
    found = composed.score(ByColour(), made, asked)
    assert all(share.value == 1 for share in found["real"].values())
    on_white = sum(len(s.boxes) > 1 for s in asked)
    assert found["generated"]["colour of the ground"].right == on_white
    assert found["generated"]["right subject in its place: two subjects"].value < 0.9
    assert sum(s.asked for k, s in found["real"].items() if "place" in k) == sum(len(s.boxes) for s in asked)


def test_half_of_the_scenes_have_grounds_and_they_never_depend_on_luck(pictures):
    asked, again = (composed.scenes(pictures, 24) for _ in range(2))
    assert [s.caption for s in asked] == [s.caption for s in again]
    assert sum(len(s.boxes) == 1 for s in asked) == 12
    assert all(s.caption.startswith("a noto emoji of ") for s in asked)


@pytest.mark.parametrize("name", BACKGROUNDS)
def test_a_ground_is_known_although_something_touches_the_edge(name):
    colour = torch.tensor(BACKGROUNDS[name]) / 255
    picture = colour[:, None, None].repeat(1, 64, 64) + 0.02
    picture[:, :20, :20] = 0
    assert composed.ground(picture) == name
