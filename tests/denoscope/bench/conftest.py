"""A tiny model, a judge of colours, and concepts in its few words."""

from __future__ import annotations

import hashlib

import pytest
import torch

from denoscope.bench import Concept, Probe
from denoscope.editing import quickfix


class ColourJudge:
    """Likes for each text another mixture of colours; it has features too."""

    about = {"name": "colours"}

    def similarity(self, images, texts):
        seen = torch.stack([images.mean((2, 3)), images.std((2, 3))], 1).flatten(1)
        return seen @ torch.stack([direction(t) for t in texts]).T

    def features(self, images):
        return torch.nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)


def direction(text):
    seed = int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)
    return torch.randn(6, generator=torch.Generator().manual_seed(seed))


def concept(said, meant, near, far, template="a {}"):
    source, target, peer, other = (template.format(w) for w in (said, meant, near, far))
    longer = template.replace("{}", "big {}")
    return Concept(
        "things",
        said,
        meant,
        (
            Probe("efficacy", source, target, (source, peer)),
            Probe("paraphrase", longer.format(said), longer.format(meant), (longer.format(said),)),
            Probe("capitals", source.upper(), target, (source, peer)),
            Probe("neighbour", peer, peer, (source, target)),
            Probe("bystander", other, other, (source, target)),
        ),
    )


@pytest.fixture(scope="session")
def judge():
    return ColourJudge()


@pytest.fixture(scope="session")
def concepts():
    return [
        concept("cat", "dog", "hat", "mat"),
        concept("red", "red cook", "man", "mat"),
    ]


@pytest.fixture(scope="session")
def setup(tiny, judge, concepts):
    """What most runs are given."""
    return {
        "model": tiny,
        "concepts": concepts,
        "judge": judge,
        "seeds": 2,
        "steps": 1,
        "many": (2,),
    }


def nothing(model, requests):
    """An edit that changes nothing."""
    return 0.0 * quickfix(model, requests)
