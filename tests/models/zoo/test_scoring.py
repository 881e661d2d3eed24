"""Shares, intervals and distances against independent formulas; planted answers are counted right."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from scipy.stats import binomtest

from denoscope.models.zoo.training.data import world
from denoscope.models.zoo.training.data.pictures import Record
from denoscope.models.zoo.training.evaluate.scoring import Share, frechet, nearest, score
from denoscope.models.zoo.training.fit.train_judge import LABELS


class Planted:
    """A judge that says, for picture i, the i-th of the given answers; its features are the pixels."""

    def __init__(self, answers):
        self.answers = answers

    def labels(self, attribute):
        return LABELS[attribute]

    def probabilities(self, images, attribute):
        places = [LABELS[attribute].index(answer[attribute]) for answer in self.answers]
        return torch.nn.functional.one_hot(torch.tensor(places), len(LABELS[attribute])).float()

    def clip_score(self, images, texts):
        return torch.linspace(0, 1, len(images))

    def features(self, images):
        return images.flatten(1)


@pytest.mark.parametrize(("right", "asked"), [(0, 7), (7, 7), (83, 100), (1, 3)])
def test_intervals_are_wilsons(right, asked):
    expected = binomtest(right, asked).proportion_ci(0.95, method="wilson")
    assert Share(right, asked).interval == pytest.approx((expected.low, expected.high), abs=1e-4)


def test_nothing_asked_is_no_figure():
    assert str(Share(0, 0)) == "-"
    assert np.isnan(Share(0, 0).value)


def test_planted_answers_are_counted():
    woman = Record(name="woman cook", concept="cook", style="noto", group="", gender="woman", skin="dark")
    plain = Record(name="cook", concept="cook", style="monochrome", group="", gender="person")
    lollipop = Record(name="lollipop", concept="lollipop", style="flat", group="")
    assert "lollipop" not in world.COMMON and "cook" in world.COMMON
    answers = [
        {"style": "noto", "concept": "cook", "gender": "man", "skin": "dark"},
        {"style": "flat", "concept": "judge", "gender": "person", "skin": "dark"},
        {"style": "flat", "concept": "lollipop", "gender": "man", "skin": "light"},
    ]
    found = score(Planted(answers), torch.rand(3, 3, 8, 8), [woman, plain, lollipop], ["cook", "cook", "dog"])
    assert found["style"] == Share(2, 3)
    assert found["concept, top-1 of all"] == Share(2, 3)
    assert found["concept, people"] == Share(1, 2)
    assert found["concept, things"] == Share(1, 1)
    assert found["concept, 50 common ones, top-1 of all"] == Share(1, 2)
    assert found["concept of the nearest caption"] == Share(2, 3)
    assert found["concept of the nearest caption, 50 common ones"] == Share(2, 2)
    assert found["gender"] == Share(1, 2)  # things are not asked
    assert found["gender, man or woman asked for"] == Share(0, 1)
    assert found["skin tone"] == Share(1, 1)  # monochrome people have none
    assert found["CLIP score"].value == pytest.approx(0.5)


def test_frechet_distance():
    first, second = torch.rand(300, 6, dtype=torch.float64), 2 * torch.rand(200, 6, dtype=torch.float64) + 1
    judge = Planted([])
    assert frechet(judge, first, first) == pytest.approx(0, abs=1e-9)
    assert frechet(judge, first, first + 3) == pytest.approx(6 * 9)
    (mean, cov), (mean_b, cov_b) = (
        (x.mean(0).numpy(), np.cov(x.numpy(), rowvar=False)) for x in (first, second)
    )
    expected = ((mean - mean_b) ** 2).sum() + np.trace(cov + cov_b - 2 * sqrtm(cov @ cov_b).real)
    assert frechet(judge, first, second) == pytest.approx(expected)


def test_nearest_caption_names_the_concept():
    """A judge for whom picture i fits text i best."""

    class Fits:
        def similarity(self, images, texts):
            return torch.eye(len(texts))[: len(images)]

    records = [Record(name=c, concept=c, style="flat", group="") for c in ("dog", "cat", "fox")]
    assert nearest(Fits(), torch.rand(2, 3, 8, 8), records) == ["dog", "cat"]
