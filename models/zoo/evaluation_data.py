"""Real pictures, composed scenes, features and captions to evaluate the embedded models with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from ..errors import MissingFileError
from ..html import Brief
from ..store.disk import write_bytes
from ..store.sealed import DamagedFolderError
from .folders import HOME
from .sheets import unpacked

MANIFEST = "manifest.json"
FOLDER = HOME / "evaluation"


@dataclass(frozen=True)
class Label:
    """What a real picture shows.

    Attributes:
        name: as Unicode calls it: "woman firefighter: dark skin tone".
        concept: what is shown, without gender and skin: "firefighter"; one of ``world.json``'s concepts.
        style: whose drawing it is; of ``unseen`` "style", one that the models do not know.
        gender: man, woman or person; none for things.
        skin: yellow, or a tone; none for things, and in styles without colour.
        colour: the colour of most of it, or None.
        licence: of the artwork.
        codepoint: in Unicode.
        caption: the full caption, in the first wording of the training captions.
        unseen: what no model and no judge has seen: this "combination" of concept, style, gender and skin, or
            this "style".
    """

    name: str
    concept: str
    style: str
    gender: str
    skin: str
    colour: str | None
    licence: str
    codepoint: str
    caption: str
    unseen: str


@dataclass(frozen=True, repr=False)
class RealPictures(Brief):
    """Pictures that nothing was trained on.

    Attributes:
        pictures: on white, ``[picture, 3, 64, 64]`` in 0..1.
        opacity: where something is drawn, ``[picture, 64, 64]`` in 0..1.
        labels: one for each.
    """

    pictures: Tensor
    opacity: Tensor
    labels: tuple[Label, ...]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Subject:
    """One thing or person in a scene.

    Attributes:
        words: how the caption calls it; of several of one kind, the plural.
        concept: as in ``Label``.
        gender: man, woman, person or none.
        box: top, left and side of the square that it stands in, in pixels.
    """

    words: str
    concept: str
    gender: str
    box: tuple[int, int, int]


@dataclass(frozen=True, repr=False)
class Scene(Brief):
    """A composed picture.

    Attributes:
        kind: "ground" (one subject on a coloured ground), "pair" (left and right) or "count" (two to four).
        caption: full, as the models were trained.
        style: of all subjects.
        ground: name of the ground's colour; white in pairs and counts.
        subjects: in the order of ``masks``.
        picture: ``[3, 64, 64]`` in 0..1.
        masks: which pixels are mostly a subject's, ``[subject, 64, 64]`` bool; they do not overlap. Of style
            monochrome these are the lines.
    """

    kind: str
    caption: str
    style: str
    ground: str
    subjects: tuple[Subject, ...]
    picture: Tensor
    masks: Tensor


@dataclass(frozen=True)
class Captions:
    """Captions as they come in training, and how often words stand in them.

    Attributes:
        texts: for covariances; none is empty, some come twice.
        counted: how many captions of the same stream were counted.
        words: word to the number of captions that hold it.
        pairs: two words in alphabetical order to the number of captions that hold both; rare ones left out.
        genders: concept of people to the share of each gender among its captions.
    """

    texts: tuple[str, ...]
    counted: int
    words: Mapping[str, int]
    pairs: Mapping[tuple[str, str], int]
    genders: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, repr=False)
class Reference(Brief):
    """Features of the pictures that the models were trained on, for Fréchet and kernel distances.

    Attributes:
        features: ``judge.features`` of each training picture on white, ``[picture, feature]``, without unit.
        judge: SHA-256 of the classifier's weights; features of another judge compare with nothing here.
    """

    features: Tensor
    judge: str


@dataclass(frozen=True)
class EvaluationData:
    """What ships for evaluations; each part is read, and compared with its hash, when it is first used.

    Artwork by Google (noto, blob: Apache-2.0), Twitter and contributors (twemoji: CC-BY-4.0), Microsoft
    (flat, glossy, monochrome: MIT), EmojiOne (emojione: CC-BY-4.0) and Mozilla (firefox: Apache-2.0), drawn
    at 64 x 64 pixels; each label names its licence, and the README beside the files has the credits.

    Args:
        folder: as the training command ``evaluation-data`` writes it.

    >>> found = data()
    >>> found.real.pictures.shape, len(found.scenes), found.reference.features.shape[1]
    (torch.Size([500, 3, 64, 64]), 200, 128)
    >>> found.scenes[1].caption, found.scenes[1].masks.shape
    ('a noto emoji of cherries and a woman mechanic', torch.Size([2, 64, 64]))
    """

    folder: Path

    @cached_property
    def real(self) -> RealPictures:
        """500 real pictures with labels; 181 of combinations, the rest of styles, that nothing has seen."""
        labels = tuple(Label(**row) for row in self._json("real.json"))
        pixels = unpacked(self._read("real.webp"), len(labels)).float() / 255
        alpha = pixels[:, 3:]
        return RealPictures(pixels[:, :3] * alpha + (1 - alpha), alpha[:, 0], labels)

    @cached_property
    def scenes(self) -> tuple[Scene, ...]:
        """200 scenes composed of training pictures: a quarter on grounds, half pairs, a quarter counts."""
        rows = self._json("scenes.json")
        pictures = unpacked(self._read("scenes.webp"), len(rows)).float() / 255
        number = sum(len(row["subjects"]) for row in rows)
        masks = iter(unpacked(self._read("masks.png"), number)[:, 0] > 0)
        return tuple(_scene(row, picture, masks) for row, picture in zip(rows, pictures, strict=True))

    @cached_property
    def captions(self) -> Captions:
        """2,000 captions for covariances, and statistics of many more."""
        told = self._json("captions.json")
        pairs = {(first, second): n for first, second, n in told.pop("pairs")}
        return Captions(**{**told, "texts": tuple(told["texts"]), "pairs": pairs})

    @cached_property
    def reference(self) -> Reference:
        """Features of all training pictures."""
        told = self._json("reference.json")
        return Reference(
            safetensors.torch.load(self._read("reference.safetensors"))["features"].float(), **told
        )

    @cached_property
    def _hashes(self) -> dict[str, str]:
        file = self.folder / MANIFEST
        if not file.is_file():
            raise MissingFileError(f"there are no evaluation data in {str(self.folder)!r}: no {MANIFEST}")
        hashes: dict[str, str] = json.loads(file.read_text())
        return hashes

    def _read(self, name: str) -> bytes:
        expected, file = self._hashes.get(name), self.folder / name
        found = file.read_bytes() if file.is_file() else b""
        if hashlib.sha256(found).hexdigest() != expected:
            raise DamagedFolderError(
                f"{str(file)!r} is not what was written; install denoscope again, or take it from a copy"
            )
        return found

    def _json(self, name: str) -> Any:
        return json.loads(self._read(name))


@lru_cache(maxsize=1)
def data() -> EvaluationData:
    """The evaluation data of the embedded models.

    Returns:
        Real pictures, scenes, captions, reference features; nothing is read yet. See ``EvaluationData`` for
        shapes, units and licences.

    Raises:
        ValueError: at the first use of a part whose file is damaged; it names the file.

    >>> data().real.labels[0].unseen
    'combination'
    """
    return EvaluationData(FOLDER)


def _scene(row: Mapping[str, Any], picture: Tensor, masks: Iterator[Tensor]) -> Scene:
    subjects = tuple(Subject(**{**told, "box": tuple(told["box"])}) for told in row["subjects"])
    own = torch.stack([next(masks) for _ in subjects])
    return Scene(**{**row, "subjects": subjects, "picture": picture, "masks": own})


def seal(folder: Path) -> None:
    """Write the manifest of a folder of such data: the hash of each of its files but what tells of them."""
    files = sorted(f for f in folder.iterdir() if f.name != MANIFEST and f.suffix != ".md")
    hashes = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    write_bytes(folder / MANIFEST, (json.dumps(hashes, indent=1) + "\n").encode())
