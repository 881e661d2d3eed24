"""A few plain pictures with known records, in place of the real data."""

import torch

from denoscope.models.zoo.training.data.pictures import Pictures, Record

COLOURS = {"dog": (255, 0, 0), "cat": (0, 0, 255), "fox": (0, 160, 0), "cook": (120, 60, 20)}


def pictures() -> Pictures:
    """Discs in one colour for each concept; the person has many pictures, each thing one for each style."""
    records = [
        Record(name=c, concept=c, style=s, group="animals-nature")
        for c in ("dog", "cat", "fox")
        for s in ("noto", "flat")
    ]
    records += [
        Record(name=f"{g} cook", concept="cook", style=s, group="people-body", gender=g, skin=t)
        for g in ("man", "woman")
        for s in ("noto", "flat")
        for t in ("none", "light", "medium", "dark")
    ]
    return Pictures(torch.stack([disc(COLOURS[r.concept]) for r in records]), tuple(records))


def disc(colour: tuple[int, int, int]) -> torch.Tensor:
    """An opaque disc on a clear ground, ``[4, 64, 64]``."""
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    inside = (y - 31.5) ** 2 + (x - 31.5) ** 2 < 28**2
    out = torch.zeros(4, 64, 64, dtype=torch.uint8)
    for i, value in enumerate((*colour, 255)):
        out[i][inside] = value
    return out
