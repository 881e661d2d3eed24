"""Pictures made of several: a coloured ground, two subjects side by side, up to four of one kind.

Where each subject stands is known, so these are planted truth for analyses of layout.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from .captions import phrase, plural, subject, with_article, worded
from .pictures import SIZE, Pictures, Record

BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "red": (226, 92, 84),
    "orange": (245, 166, 88),
    "yellow": (247, 223, 116),
    "green": (130, 196, 122),
    "blue": (112, 170, 232),
    "purple": (176, 138, 214),
    "pink": (244, 172, 200),
    "gray": (168, 172, 176),
}
NUMBERS = {2: "two", 3: "three", 4: "four"}
_HALF = SIZE // 2
_PLACES = {
    2: ((_HALF // 2, 0), (_HALF // 2, _HALF)),
    3: ((0, _HALF // 2), (_HALF, 0), (_HALF, _HALF)),
    4: ((0, 0), (0, _HALF), (_HALF, 0), (_HALF, _HALF)),
}


@dataclass(frozen=True)
class Scene:
    """A picture, its caption, and who stands where.

    Attributes:
        picture: ``[3, 64, 64]`` in 0..1.
        caption: what it says.
        records: of each subject.
        boxes: top, left and side of the square that each stands in.
        opacity: where each is drawn, ``[subject, 64, 64]`` in 0..1.
    """

    picture: Tensor
    caption: str
    records: tuple[Record, ...]
    boxes: tuple[tuple[int, int, int], ...]
    opacity: Tensor


def on_background(pixels: Tensor, record: Record, colour: str, rng: random.Random | None = None) -> Scene:
    """One subject on a coloured ground: "a flat emoji of a dog on a blue background"."""
    what = f"{with_article(phrase(record, rng))} on {with_article(colour)} background"
    return _scene(
        pixels[None], (record,), ((0, 0, SIZE),), worded(what, record.style, rng), BACKGROUNDS[colour]
    )


def pair(pixels: Tensor, left: Record, right: Record, rng: random.Random | None = None) -> Scene:
    """Two subjects, left and right: "a dog and a red heart". ``pixels`` is ``[2, 4, 64, 64]``."""
    what = f"{with_article(subject(left))} and {with_article(subject(right))}"
    boxes = tuple((top, x, _HALF) for top, x in _PLACES[2])
    return _scene(pixels, (left, right), boxes, worded(what, left.style, rng))


def several(pixels: Tensor, record: Record, number: int, rng: random.Random | None = None) -> Scene:
    """Two to four of one kind: "three red hearts"."""
    boxes = tuple((top, x, _HALF) for top, x in _PLACES[number])
    text = worded(f"{NUMBERS[number]} {plural(subject(record))}", record.style, rng)
    return _scene(pixels.expand(number, -1, -1, -1), (record,) * number, boxes, text)


def place(picture: Tensor, box: tuple[int, int, int]) -> Tensor:
    """What stands in a box of a picture ``[3, 64, 64]``, cut out and enlarged to the same size."""
    top, left, side = box
    part = picture[None, :, top : top + side, left : left + side]
    if side == SIZE:
        return part[0]
    return F.interpolate(part, (SIZE, SIZE), mode="bicubic", align_corners=False)[0].clamp(0, 1)


def random_scene(
    pictures: Pictures,
    first: int,
    second: int,
    rng: random.Random,
    kinds: tuple[float, float, float] = (2, 1, 1),
) -> Scene:
    """A scene of a random kind with the picture ``first``, and ``second`` where two subjects are shown.

    ``kinds`` weighs a coloured ground, a pair and several of one kind.
    """
    record, other = pictures.records[first], pictures.records[second]
    kind = rng.choices(("ground", "pair", "count"), kinds)[0]
    if kind == "ground" or (kind == "pair" and other.style != record.style):
        return on_background(pictures.pixels[first], record, rng.choice(tuple(BACKGROUNDS)), rng)
    if kind == "pair":
        return pair(pictures.pixels[[first, second]], record, other, rng)
    return several(pictures.pixels[first][None], record, rng.choice((2, 3, 4)), rng)


def _scene(
    pixels: Tensor,
    records: tuple[Record, ...],
    boxes: Sequence[tuple[int, int, int]],
    caption: str,
    ground: tuple[int, int, int] = (255, 255, 255),
) -> Scene:
    canvas = (torch.tensor(ground, dtype=torch.float32) / 255)[:, None, None].repeat(1, SIZE, SIZE)
    opacity = torch.zeros(len(boxes), SIZE, SIZE)
    for i, (part, (top, left, side)) in enumerate(zip(pixels.float() / 255, boxes, strict=True)):
        alpha = part[3:]
        layer = torch.cat([part[:3] * alpha, alpha])
        if side != SIZE:
            layer = F.interpolate(layer[None], (side, side), mode="area")[0]
        box = canvas[:, top : top + side, left : left + side]
        box.copy_(layer[:3] + box * (1 - layer[3:]))
        opacity[i, top : top + side, left : left + side] = layer[3]
    return Scene(canvas, caption, records, tuple(boxes), opacity)
