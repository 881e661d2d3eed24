"""What an unconditional model of people paints: shares of styles, genders and skins, likeness, copies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ....errors import UsageError
from ....judges.embedded import Judge
from ....load import load
from ..assemble import STEPS
from ..data import world
from ..data.pictures import Pictures, Record
from ..data.sampling import weights
from ..fit.inputs import Pixels
from ..recipes import people
from .generate import generate, starting_noise
from .scoring import Share, frechet

ATTRIBUTES = ("gender", "skin", "style")


@dataclass(frozen=True)
class Found:
    """What the judge says about pictures made without a prompt.

    Attributes:
        pictures: generated, ``[n, 3, side, side]`` in 0..1.
        shares: each label to its share of the generated, of those started from the mean picture, of the
            training pictures as judged, and as labelled.
        sure: each attribute to the judge's mean certainty about generated and about real pictures.
        frechet: name of a set of pictures to its Fréchet distance from the training pictures.
        nearest: median distance to the nearest training picture, of generated and of held-out pictures.
    """

    pictures: Tensor
    shares: dict[str, tuple[Share, ...]]
    sure: dict[str, tuple[float, float]]
    frechet: dict[str, float]
    nearest: dict[str, float]


@torch.no_grad()
def evaluate(folder: Path, judge: Judge, pictures: Pictures, number: int, kept: Path) -> Found:
    """Generate pictures and judge them beside the training pictures.

    Args:
        folder: an assembled model that reads no text.
        judge: knows genders, skins and styles.
        pictures: all that the builder rendered; split here.
        number: how many to generate.
        kept: a folder for pictures made so far: a stopped evaluation goes on from there.

    Raises:
        ValueError: for fewer than 10 pictures.
    """
    if number < 10:
        raise UsageError(f"an evaluation needs at least 10 pictures, got {number}")
    train, out = (people(part) for part in world.split(pictures))
    made = generate(folder, [""] * number, kept)
    small = Pixels(made.shape[-1])
    real, unseen = ((small.encode(part.on_white()) + 1) / 2 for part in (train, out))
    likely = weights(train.records)
    some = torch.multinomial(likely, number, replacement=True, generator=starting_noise(0)).tolist()
    order = torch.randperm(len(real), generator=starting_noise(0))
    records = [train.records[i] for i in some]
    begun = from_mean(folder, real.mean(0), max(10, number // 2))
    shares: dict[str, tuple[Share, ...]] = {}
    sure: dict[str, tuple[float, float]] = {}
    for attribute in ATTRIBUTES:
        shares |= _shares(judge, attribute, (made, begun, real[some]), records)
        first, second = (judge.probabilities(p, attribute).amax(1).mean().item() for p in (made, real[some]))
        sure[attribute] = (first, second)
    distances = {
        "generated": frechet(judge, made, real),
        "half of the real ones": frechet(judge, real[order[::2]], real[order[1::2]]),
        "real, held-out combinations": frechet(judge, unseen, real),
    }
    nearest = {"generated": _nearest(made, real), "held out": _nearest(unseen, real)}
    return Found(made, shares, sure, distances, nearest)


def from_mean(folder: Path, mean: Tensor, number: int, batch: int = 50) -> Tensor:
    """Pictures that start one step in, from the mean picture under noise: a control of the plain start.

    Where the two starts paint other shares of people, the plain one is no start that training showed.

    Args:
        folder: an assembled model that reads no text.
        mean: of the training pictures, ``[3, side, side]`` in 0..1.
        number: how many, seeds from 0 on.
        batch: pictures at once.
    """
    model, parts = load(str(folder)), []
    for first in range(0, number, batch):
        seeds = range(first, min(first + batch, number))
        start = model.start_at(mean.expand(len(seeds), -1, -1, -1), 1, seeds, steps=STEPS)
        *_, last = model.sample([""] * len(seeds), seeds=seeds, start=start, steps=STEPS)
        parts.append(model.decode(last.latents))
    return torch.cat(parts).float()


def _shares(
    judge: Judge, attribute: str, sets: Sequence[Tensor], records: Sequence[Record]
) -> dict[str, tuple[Share, ...]]:
    labels = judge.labels(attribute)
    said = [judge.probabilities(p, attribute).argmax(1).tolist() for p in sets]
    told = [{"gender": r.gender, "style": r.style, "skin": world.skin_name(r)}[attribute] for r in records]
    return {
        f"{attribute}: {label}": (
            *(Share(found.count(i), len(found)) for found in said),
            Share(told.count(label), len(told)),
        )
        for i, label in enumerate(labels)
    }


def _nearest(pictures: Tensor, real: Tensor) -> float:
    """Median over pictures of the root mean square distance to the nearest real one."""
    size = pictures[0].numel()
    distances = torch.cdist(pictures.flatten(1), real.flatten(1)).amin(1) / size**0.5
    return float(distances.median())
