"""Do composed prompts come out as told: the ground in its colour, each subject in its place?"""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor

from ....judges.embedded import Judge
from ..data.compose import BACKGROUNDS, NUMBERS, Scene, on_background, pair, place, several
from ..data.pictures import SIZE, Pictures
from ..data.sampling import weights
from .scoring import Share

_KINDS = {1: "alone on a ground", 2: "two subjects", 3: "three or four", 4: "three or four"}


def scenes(pictures: Pictures, number: int, seed: int = 0) -> list[Scene]:
    """Scenes in their full wording, of subjects without skin tone: half on grounds, pairs, and counts."""
    rng = random.Random(seed)
    single = [i for i, record in enumerate(pictures.records) if record.skin == "none"]
    likely = weights(pictures.records)[single]
    generator = torch.Generator().manual_seed(seed)
    firsts = torch.multinomial(likely, number, replacement=True, generator=generator).tolist()
    return [_scene(pictures, single, single[first], i % 4, rng) for i, first in enumerate(firsts)]


def _scene(pictures: Pictures, single: Sequence[int], first: int, kind: int, rng: random.Random) -> Scene:
    record, pixels = pictures.records[first], pictures.pixels[first]
    if kind == 2:
        other = rng.choice([i for i in single if pictures.records[i].style == record.style])
        return pair(pictures.pixels[[first, other]], record, pictures.records[other])
    if kind == 3:
        return several(pixels[None], record, rng.choice(tuple(NUMBERS)))
    return on_background(pixels, record, rng.choice(tuple(BACKGROUNDS)))


def score(judge: Judge, made: Tensor, asked: Sequence[Scene]) -> dict[str, dict[str, Share]]:
    """Ask about generated scenes, and about the real ones they should look like.

    Args:
        judge: names what stands in each place, by its classifier: the captions of single pictures, with which
            a CLIP could compare, say nothing of a ground.
        made: generated, ``[scene, 3, 64, 64]`` in 0..1.
        asked: the scenes.

    Returns:
        For "generated" and "real": the share of frames of the right colour, and for each kind of scene the
        share of places with the right concept.
    """
    real = torch.stack([scene.picture for scene in asked])
    wanted = [ground(picture) for picture in real]
    found = {}
    for name, pictures in (("generated", made), ("real", real)):
        right = [ground(p) == w for p, w in zip(pictures, wanted, strict=True)]
        found[name] = {"colour of the ground": Share(sum(right), len(right))}
        found[name] |= _places(judge, pictures, asked)
    return found


def ground(picture: Tensor) -> str:
    """The name of the colour, of all grounds and white, nearest to the middle one of the outermost pixels."""
    colours = {"white": (255, 255, 255), **BACKGROUNDS}
    inner = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    inner[2:-2, 2:-2] = True
    middle = picture[:, ~inner].median(1).values
    table = torch.tensor(list(colours.values())) / 255
    return list(colours)[int((table - middle).square().sum(1).argmin())]


@torch.no_grad()
def _places(judge: Judge, pictures: Tensor, asked: Sequence[Scene]) -> dict[str, Share]:
    """What stands in each box, looked at alone."""
    looked = [
        (picture, record, box, len(scene.boxes))
        for picture, scene in zip(pictures, asked, strict=True)
        for record, box in zip(scene.records, scene.boxes, strict=True)
    ]
    large = torch.stack([place(picture, box) for picture, _, box, _ in looked])
    labels = judge.labels("concept")
    names = [labels[i] for i in judge.probabilities(large, "concept").argmax(1).tolist()]
    found = {}
    for kind in dict.fromkeys(_KINDS.values()):
        right = [
            name == r.concept for name, (_, r, _, n) in zip(names, looked, strict=True) if _KINDS[n] == kind
        ]
        found[f"right subject in its place: {kind}"] = Share(sum(right), len(right))
    return found
