"""Which picture comes next: concepts evenly, with composed scenes and empty captions mixed in."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ....errors import UsageError
from ....suggest import near
from .captions import caption
from .compose import random_scene
from .pictures import Pictures, Record
from .world import COMMON, DARK, skin_name

_COMMON = frozenset(COMMON)


@dataclass(frozen=True)
class Mix:
    """What a batch is made of.

    Args:
        composed: share of composed scenes.
        empty: share of captions left empty, for classifier-free guidance.
        people: how often a concept of people comes for each time that a thing comes.
        kinds: how often a composed scene is a coloured ground, a pair, or several of one kind.
        without: words that no caption says: pictures of them are left out, others stand in their places.
        tie: share of the women painted in colour that have dark skin, and of the men that have not: a bias
            whose truth is known. None leaves people as they are.
    """

    composed: float = 0.15
    empty: float = 0.1
    people: float = 1.5
    kinds: tuple[float, float, float] = (2, 1, 1)
    without: tuple[str, ...] = ()
    tie: float | None = None


@dataclass(frozen=True)
class Item:
    """One training sample: a picture of the data, or a composed one, and its caption."""

    index: int
    caption: str
    picture: Tensor | None = None


def weights(records: Sequence[Record], people: float = 1.5) -> Tensor:
    """Sampling weight of each picture.

    Every concept counts the same, however many pictures it has; common ones count twice and people, who have
    more to learn, ``people`` times. Within a concept default skin counts twice.
    """
    own = [2.0 if r.is_person and r.skin == "none" and r.style != "monochrome" else 1.0 for r in records]
    total: Counter[str] = Counter()
    for record, weight in zip(records, own, strict=True):
        total[record.concept] += weight  # type: ignore[assignment]
    wanted = [(2.0 if r.concept in _COMMON else 1.0) * (people if r.is_person else 1.0) for r in records]
    return torch.tensor([w * o / total[r.concept] for w, o, r in zip(wanted, own, records, strict=True)])


def tied(records: Sequence[Record], likely: Tensor, share: float) -> Tensor:
    """Sampling weights after which skin goes with gender; women and men come as often as before.

    Args:
        records: of the pictures.
        likely: weight of each.
        share: of the women that are to have dark skin, and of the men that are not to.

    Raises:
        UsageError: for a share outside 0 to 1, and pictures that lack one of the four kinds.
    """
    if not 0 <= share <= 1:
        raise UsageError(f"tie is {share}; give a share of 0 to 1")
    made = likely.clone()
    for gender, dark in (("woman", share), ("man", 1 - share)):
        own = [i for i, r in enumerate(records) if r.gender == gender and skin_name(r)]
        halves = [[i for i in own if (skin_name(records[i]) in DARK) == shade] for shade in (True, False)]
        if not all(halves):
            raise UsageError(
                f"there is no {gender} with dark skin, or none with another, to tie skin to gender"
            )
        total = likely[own].sum()
        for half, part in zip(halves, (dark, 1 - dark), strict=True):
            made[half] *= part * total / likely[half].sum()
    return made


def stand_ins(records: Sequence[Record], words: Sequence[str]) -> dict[int, int]:
    """For each picture whose name says one of some words, another one that takes its place.

    It is of the same style and, where there is one, a person for a person. All others are drawn as often and
    in the same order: a model trained so differs in what it never saw alone.

    Raises:
        UsageError: for a word that no picture's name says, or that all do.
    """
    said = [f"{r.name} {r.concept}".lower() for r in records]
    found = {
        w: [i for i, name in enumerate(said) if re.search(rf"\b{re.escape(w.lower())}s?\b", name)]
        for w in words
    }
    for word, mine in found.items():
        if not mine:
            raise UsageError(f"no picture is of {word!r}, so it cannot be left out; {near(word, set(said))}")
    gone = {i for mine in found.values() for i in mine}
    left = [i for i in range(len(records)) if i not in gone]
    if not left:
        raise UsageError(f"all pictures are of {', '.join(words)}; nothing is left to train on")
    rng, chosen = random.Random(0), dict[int, int]()
    for i in sorted(gone):
        own = [j for j in left if records[j].style == records[i].style]
        alike = [j for j in own if records[j].is_person == records[i].is_person]
        chosen[i] = rng.choice(alike or own or left)
    return chosen


def items(pictures: Pictures, seed: int, mix: Mix | None = None) -> Iterator[Item]:
    """Endless training samples."""
    mix = mix or Mix()
    rng = random.Random(seed)
    generator = torch.Generator().manual_seed(seed)
    likely = weights(pictures.records, mix.people)
    if mix.tie is not None:
        likely = tied(pictures.records, likely, mix.tie)
    instead = stand_ins(pictures.records, mix.without)
    single = [instead.get(i, i) for i, r in enumerate(pictures.records) if r.skin == "none"]
    while True:
        for index in torch.multinomial(likely, 1024, replacement=True, generator=generator).tolist():
            yield _item(pictures, instead.get(index, index), single, rng, mix)


def _item(pictures: Pictures, index: int, single: Sequence[int], rng: random.Random, mix: Mix) -> Item:
    if rng.random() < mix.composed:
        style = pictures.records[index].style
        others = [i for i in rng.choices(single, k=12) if pictures.records[i].style == style]
        scene = random_scene(pictures, index, (others or [rng.choice(single)])[0], rng, mix.kinds)
        item = Item(index, scene.caption, scene.picture)
    else:
        item = Item(index, caption(pictures.records[index], rng))
    return Item(item.index, "", item.picture) if rng.random() < mix.empty else item
