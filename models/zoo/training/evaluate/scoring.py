"""What the judges say about pictures: right answers with intervals, CLIP score, Fréchet distance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ....judges import distances
from ....judges.embedded import Judge
from ..data import world
from ..data.captions import caption
from ..data.pictures import Record


@dataclass(frozen=True)
class Share:
    """A share of right answers, and how many were asked."""

    right: int
    asked: int

    @property
    def value(self) -> float:
        """The share, 0 to 1; NaN when nothing was asked."""
        return self.right / self.asked if self.asked else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the sampling error (Wilson 1927)."""
        if not self.asked:
            return math.nan, math.nan
        z, p, n = 1.96, self.value, self.asked
        centre, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return (centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)

    def __str__(self) -> str:
        """Percent, interval, number asked."""
        if not self.asked:
            return "-"
        low, high = self.interval
        return f"{100 * self.value:.1f} % ({100 * low:.0f}-{100 * high:.0f}, n={self.asked})"


@dataclass(frozen=True)
class Mean:
    """A mean and its standard error."""

    value: float
    error: float

    def __str__(self) -> str:
        """The mean with a 95 % interval."""
        return f"{self.value:.3f} ± {1.96 * self.error:.3f}"


Scores = dict[str, Share | Mean]


@torch.no_grad()
def nearest(judge: Judge, pictures: Tensor, records: Sequence[Record]) -> list[str]:
    """The concept of the caption, of all records' captions, that the CLIP finds nearest to each picture."""
    concepts = {caption(record): record.concept for record in records}
    texts = list(concepts)
    return [concepts[texts[i]] for i in judge.similarity(pictures, texts).argmax(1).tolist()]


@torch.no_grad()
def score(judge: Judge, pictures: Tensor, records: Sequence[Record], read: Sequence[str]) -> Scores:
    """Ask the judges whether pictures show what their records say.

    Args:
        judge: knows the labels of the curated world.
        pictures: ``[n, 3, 64, 64]`` in 0..1.
        records: what each should show. People are asked for gender, painted people for skin.
        read: the concept of the nearest caption, from ``nearest``.
    """
    genders = [r.gender if r.is_person else None for r in records]
    concept = _right(judge, pictures, "concept", [r.concept for r in records])
    common = [r.concept in world.COMMON for r in records]
    named = [said == r.concept for said, r in zip(read, records, strict=True)]
    clip = judge.clip_score(pictures, [caption(r) for r in records])
    return {
        "style": _share(_right(judge, pictures, "style", [r.style for r in records])),
        "concept, top-1 of all": _share(concept),
        "concept, people": _share(_where(concept, [r.is_person for r in records])),
        "concept, things": _share(_where(concept, [not r.is_person for r in records])),
        "concept, 50 common ones, top-1 of all": _share(_where(concept, common)),
        "concept, 50 common ones, top-1 of the 50": _share(_among_common(judge, pictures, records)),
        "concept of the nearest caption": _share(named),
        "concept of the nearest caption, people": _share(_where(named, [r.is_person for r in records])),
        "concept of the nearest caption, things": _share(_where(named, [not r.is_person for r in records])),
        "concept of the nearest caption, 50 common ones": _share(_where(named, common)),
        "gender": _share(_right(judge, pictures, "gender", genders)),
        "gender, man or woman asked for": _share(
            _right(judge, pictures, "gender", [g if g != "person" else None for g in genders])
        ),
        "skin tone": _share(_right(judge, pictures, "skin", [world.skin_name(r) for r in records])),
        "CLIP score": Mean(clip.mean().item(), (clip.std() / math.sqrt(len(clip))).item()),
    }


@torch.no_grad()
def frechet(judge: Judge, first: Tensor, second: Tensor) -> float:
    """Fréchet distance between two sets of pictures on the classifier's features (Heusel et al. 2017).

    Small sets are biased upwards.
    """
    return distances.frechet(judge.features(first), judge.features(second))


Answers = list[bool | None]
"""Right or wrong for each picture; None where the question does not apply."""


def _right(judge: Judge, pictures: Tensor, attribute: str, wanted: Sequence[str | None]) -> Answers:
    labels = judge.labels(attribute)
    said = [labels[i] for i in judge.probabilities(pictures, attribute).argmax(1).tolist()]
    return [None if want is None else want == answer for want, answer in zip(wanted, said, strict=True)]


def _among_common(judge: Judge, pictures: Tensor, records: Sequence[Record]) -> Answers:
    labels = judge.labels("concept")
    chances = judge.probabilities(pictures, "concept")[:, [labels.index(name) for name in world.COMMON]]
    said = [world.COMMON[i] for i in chances.argmax(1).tolist()]
    asked = [r.concept for r in records]
    return [s == a if a in world.COMMON else None for s, a in zip(said, asked, strict=True)]


def _where(answers: Sequence[bool | None], keep: Sequence[bool]) -> Answers:
    return [answer if kept else None for answer, kept in zip(answers, keep, strict=True)]


def _share(answers: Sequence[bool | None]) -> Share:
    counted = [answer for answer in answers if answer is not None]
    return Share(sum(counted), len(counted))
