"""Planted places on disk: a safetensors file for each kind, and all that is told of them in its header."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ...models.arguments import checked
from ...models.errors import NotFoundError
from ...models.store.tensor_file import HASH, TensorFile
from ...models.suggest import near
from .directions import PlantedDirection
from .facts import PlantedFact
from .places import Planted, question_of, told_of
from .readings import PlantedReading

KINDS: Mapping[str, type[Planted]] = {
    "layers": PlantedReading,
    "fact": PlantedFact,
    "direction": PlantedDirection,
}
HOME = Path(__file__).parent / "made"
FILE = TensorFile(
    "planted places",
    1,
    {
        "kind": str,
        "model": str,
        "base": HASH,
        "seed": int,
        "redrawn": int,
        "places": [{"questions": [object], "how": object}],
    },
    "python -m denoscope.editing.planting",
)


@dataclass(frozen=True, eq=False)
class PlantedPlaces(Sequence[Planted]):
    """All planted places of one kind in one model.

    Args:
        places: each of them.
        redrawn: how many were drawn beside them that did nothing when they were tried out, and were left out.
        seed: of the drawing.
    """

    places: tuple[Planted, ...]
    redrawn: int
    seed: int

    def __getitem__(self, i: Any) -> Any:
        return self.places[i]

    def __len__(self) -> int:
        return len(self.places)


@checked
def planted(kind: str, model: str = "emoji") -> PlantedPlaces:
    """Return places of an embedded model whose inner truth is known, because it was put there.

    Args:
        kind: ``"layers"``: style words that some cross-attention layers alone can read, and object words that
            others alone can; ``"fact"``: a word that one layer of the text encoder reads as another;
            ``"direction"``: a vector added at one site of the denoiser in a window of steps, if the prompt
            says a word.
        model: name of an embedded model.

    Returns:
        Places; ``with place.applied(model): ...`` puts one in, ``place.questions`` say what to ask and what
        is true.

    Raises:
        LookupError: for another kind, and a model without planted places.
        ValueError: if the file is damaged.

    >>> place = planted("fact")[0]
    >>> question = place.questions[0]
    >>> question.clean > question.corrupted
    True
    """
    if kind not in KINDS:
        raise NotFoundError(f"no kind of planted place is called {kind!r}; {near(kind, KINDS)}")
    path = HOME / f"{model}-{kind}.safetensors"
    if not path.is_file():
        there = sorted({p.stem.rpartition("-")[0] for p in HOME.glob(f"*-{kind}.safetensors")})
        raise NotFoundError(f"nothing was planted in {model!r}; there is {', '.join(there) or 'no model'}")
    return read(path)


def read(path: Path) -> PlantedPlaces:
    """Return the places of a file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, or something else.
    """
    tensors, about = FILE.read(path)
    places = []
    for i, told in enumerate(about["places"]):
        own = {n.partition("/")[2]: t for n, t in tensors.items() if n.partition("/")[0] == str(i)}
        common = about["model"], about["base"], tuple(map(question_of, told["questions"]))
        places.append(KINDS[about["kind"]].restored(*common, own, told["how"]))
    return PlantedPlaces(tuple(places), about["redrawn"], about["seed"])


def write(path: Path, kind: str, found: PlantedPlaces) -> None:
    """Write places; the file appears under its name only when it is whole.

    Raises:
        OSError: if it cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    told = []
    for i, place in enumerate(found.places):
        own, how = place.stored()
        tensors |= {f"{i}/{name}": t for name, t in own.items()}
        told.append({"questions": [told_of(q) for q in place.questions], "how": dict(how)})
    first = found.places[0]
    about = {"kind": kind, "model": first.model, "base": first.base, "seed": found.seed}
    path.parent.mkdir(parents=True, exist_ok=True)
    FILE.write(path, tensors, {**about, "redrawn": found.redrawn, "places": told})
