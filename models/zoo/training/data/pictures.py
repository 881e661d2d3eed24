"""The pictures and what is known about them: one ``Record`` for each, kept as an .npz and a .json.gz file."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

SIZE = 64
"""Side of every picture."""


@dataclass(frozen=True)
class Record:
    """What is known about one picture of a vendor's set.

    ``gender`` is none for things; ``skin`` is none where the vendor draws the default (yellow or black).
    """

    name: str
    concept: str
    style: str
    group: str
    subgroup: str = ""
    gender: str = "none"
    skin: str = "none"
    hair: str = "none"
    colour: str | None = None
    licence: str = ""
    codepoint: str = ""
    tags: tuple[str, ...] = field(default=())

    @property
    def is_person(self) -> bool:
        """Whether somebody is drawn, rather than something."""
        return self.gender != "none"

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What the world distinguishes: concept, style, gender, skin."""
        return self.concept, self.style, self.gender, self.skin


@dataclass(frozen=True)
class Pictures:
    """Pictures ``[n, 4, 64, 64]`` as uint8 with opacity in the last channel, and their records."""

    pixels: Tensor
    records: tuple[Record, ...]

    def __len__(self) -> int:
        return len(self.records)

    def select(self, indices: Sequence[int]) -> Pictures:
        """A part of the pictures."""
        chosen = list(indices)
        return Pictures(self.pixels[chosen], tuple(self.records[i] for i in chosen))

    def on_white(self, indices: Tensor | None = None) -> Tensor:
        """Float pictures in 0..1 on a white ground, ``[n, 3, 64, 64]``."""
        pixels = self.pixels if indices is None else self.pixels[indices]
        pixels = pixels.float() / 255
        alpha = pixels[:, 3:]
        return pixels[:, :3] * alpha + (1 - alpha)


def save_pictures(pictures: Pictures, folder: Path) -> None:
    """Write ``pictures.npz`` and ``records.json.gz``."""
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / "pictures.npz", pixels=pictures.pixels.numpy())
    with gzip.open(folder / "records.json.gz", "wt") as file:
        json.dump([asdict(record) for record in pictures.records], file)


def load_pictures(folder: Path) -> Pictures:
    """Read what ``save_pictures`` wrote."""
    with np.load(folder / "pictures.npz") as arrays:
        pixels = torch.from_numpy(arrays["pixels"])
    with gzip.open(folder / "records.json.gz", "rt") as file:
        rows = json.load(file)
    names = {f.name for f in fields(Record)}
    records = [
        Record(**{k: v for k, v in row.items() if k in names} | {"tags": tuple(row["tags"])}) for row in rows
    ]
    return Pictures(pixels, tuple(records))
