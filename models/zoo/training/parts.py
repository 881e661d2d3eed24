"""The parts of the embedded models: where training leaves each, and where it lies in an assembled model."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import MissingFileError
from ..folders import place


@dataclass(frozen=True)
class Part:
    """One part: a path below the work folder, and one below the folder of a model."""

    trained: str
    shipped: str

    @property
    def folder(self) -> str:
        """The folder below the work folder that its training fills."""
        return self.trained.split("/")[0]

    def within(self, model: Path) -> Path:
        """Where it lies in a model, or in the one that the model shares it with."""
        first, *rest = Path(self.shipped).parts
        return place(model, first).joinpath(*rest)

    @property
    def step(self) -> str:
        """The training step that makes it, as it is called."""
        return _DENOISERS.get(self.folder, self.folder)


PARTS = {
    "unet": Part("unet/denoiser", "unet"),
    "transformer": Part("transformer/denoiser", "transformer"),
    "joint": Part("joint/denoiser", "transformer"),
    "people": Part("people/denoiser", "unet"),
    "vae": Part("vae/vae", "vae"),
    "text_encoder": Part("clip/text_encoder", "text_encoder"),
    "tokenizer": Part("clip/tokenizer", "tokenizer"),
    "clip_image": Part("clip/judge/clip_image.safetensors", "judge/clip_image.safetensors"),
    "clip_text": Part("clip/judge/clip_text.safetensors", "judge/clip_text.safetensors"),
    "attributes": Part("judge/attributes.safetensors", "judge/attributes.safetensors"),
}
_DENOISERS = {  # folder, and the step that fills it
    "unet": "denoiser",
    "transformer": "denoiser --model emoji-dit",
    "joint": "denoiser --model emoji-mmdit",
    "people": "denoiser --model emoji-people",
}
LATENT = ("vae", "text_encoder", "tokenizer")
JUDGES = ("clip_image", "clip_text", "attributes")


def find_parts(work: Path, base: Path | None, names: Iterable[str]) -> dict[str, Path]:
    """Where parts are: trained in the work folder, or else taken from an assembled model.

    Args:
        work: the work folder.
        base: an assembled model, or None.
        names: which parts, out of ``PARTS``.

    Raises:
        FileNotFoundError: when a part is in neither; it names the step that makes it.
    """
    found = {}
    for name in names:
        part = PARTS[name]
        places = [work / part.trained, *([part.within(base)] if base else [])]
        here = next((place for place in places if place.exists()), None)
        if here is None:
            raise MissingFileError(
                f"there is no {name} in {work / part.trained}; run the step {part.step!r} first, "
                "or name a model to take it from with --base"
            )
        found[name] = here
    return found


def history(name: str, path: Path) -> dict[str, float]:
    """How a part was trained: steps and minutes, here or as the model tells that it comes from; or empty."""
    part = PARTS[name]
    if not path.as_posix().endswith(part.trained):
        model = path.parents[len(Path(part.shipped).parts) - 1]
        found: dict[str, float] = _read(model / "training.json").get(name, {})
        return found
    kept = _read(path.parents[len(Path(part.trained).parts) - 2] / "run.json")
    return {"steps": kept["step"], "minutes": round(kept["seconds"] / 60, 1)} if kept else {}


def _read(path: Path) -> dict[str, Any]:
    kept: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return kept
