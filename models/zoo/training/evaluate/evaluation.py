"""Judge generated pictures, also of combinations never trained on, and held-out real ones."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ....errors import UsageError
from ....judges.embedded import Judge
from ..data import world
from ..data.captions import caption
from ..data.pictures import Pictures, Record
from ..data.sampling import weights
from . import composed
from .generate import generate, starting_noise
from .scoring import Scores, Share, frechet, nearest, score


@dataclass(frozen=True)
class Evaluation:
    """What was made, for which records, and what the judges say.

    Attributes:
        pictures: generated, ``[n, 3, 64, 64]`` in 0..1; the last fifth asks for held-out combinations.
        records: what each was asked to show.
        scores: name of a set of pictures to its scores.
        frechet: name of a set of pictures to its Fréchet distance from the training pictures.
        composed: generated and real scenes: grounds, pairs, counts; empty where none were trained.
    """

    pictures: Tensor
    records: tuple[Record, ...]
    scores: dict[str, Scores]
    frechet: dict[str, float]
    composed: dict[str, dict[str, Share]] = field(default_factory=dict)


def evaluate(folder: Path, judge: Judge, pictures: Pictures, number: int, kept: Path) -> Evaluation:
    """Generate pictures and judge them; held-out ones on their own where ``world.json`` says there are any.

    Args:
        folder: the pipeline.
        judge: its judge.
        pictures: all that the builder rendered; split here.
        number: how many to generate; a fifth of them asks for combinations that the scripts hold out.
        kept: a folder for pictures made so far: a stopped evaluation goes on from there.

    Raises:
        ValueError: for fewer than 10 pictures.
    """
    if number < 10:
        raise UsageError(f"an evaluation needs at least 10 pictures, got {number}")
    train, out = world.split(pictures)
    trained = number - number // 5
    asked = [*draw(train.records, trained), *draw(out.records, number // 5, seed=1)]
    made = generate(folder, [caption(record) for record in asked], kept)
    some = torch.multinomial(weights(train.records), min(1000, len(train)), generator=starting_noise(0))
    white = train.on_white()
    sets = {"generated": (made, asked), "real": (white[some], [train.records[i] for i in some.tolist()])}
    distances = {"generated": frechet(judge, made, white), "half of the real ones": _halves(judge, white)}
    told = json.loads((folder / "world.json").read_text())
    if told["held_out"]:
        sets |= {
            "generated, held-out combinations": (made[trained:], asked[trained:]),
            "real, held-out combinations": (out.on_white(), list(out.records)),
        }
        distances["real, held-out combinations"] = frechet(judge, out.on_white(), white)
    read = nearest(judge, torch.cat([shown for shown, _ in sets.values()]), (*train.records, *out.records))
    scores = {}
    for name, (shown, records) in sets.items():
        scores[name], read = score(judge, shown, records, read[: len(shown)]), read[len(shown) :]
    scenes = composed.scenes(train, number // 8) if told["backgrounds"] else []
    painted = generate(folder, [scene.caption for scene in scenes], kept) if scenes else made[:0]
    found = composed.score(judge, painted, scenes) if scenes else {}
    return Evaluation(made, tuple(asked), scores, distances, found)


def _halves(judge: Judge, real: Tensor) -> float:
    """The distance that sampling alone makes: of one random half of the real pictures from the other."""
    order = torch.randperm(len(real), generator=starting_noise(0))
    return frechet(judge, real[order[::2]], real[order[1::2]])


def draw(records: Sequence[Record], number: int, seed: int = 0) -> list[Record]:
    """Records to ask for: every concept as often as any other, in random order."""
    rng = random.Random(seed)
    by_concept: dict[str, list[Record]] = {}
    for record in records:
        by_concept.setdefault(record.concept, []).append(record)
    names = sorted(by_concept)
    rng.shuffle(names)
    return [rng.choice(by_concept[names[i % len(names)]]) for i in range(number)]
