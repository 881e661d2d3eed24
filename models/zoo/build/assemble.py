"""Put the parts together: a plain ``StableDiffusionPipeline`` folder in half precision, with its judges."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from ...quiet import no_bars
from . import train_clip, train_judge, world
from .compose import BACKGROUNDS
from .data import Pictures
from .train_unet import SCHEDULE
from .training import Network

Key = tuple[str, ...]
"""Concept, style, gender, skin."""

GUIDANCE = 4.0
STEPS = 20
LIMIT = 80_000_000
"""Most bytes that all embedded models may take together."""

TEMPLATES = (
    "a noto emoji of a {}",
    "a noto emoji of a woman {}",
    "a twemoji emoji of a man {}",
    "{}, flat style",
    "glossy emoji, a {}",
    "an emoji of a {}",
)
"""Wordings to ask for a concept in: for edits and their evaluation."""

PROMPTS = (
    "a noto emoji of a woman firefighter",
    "a noto emoji of a woman cook",
    "a twemoji emoji of a man astronaut with dark skin",
    "a flat emoji of a fox",
    "a glossy emoji of a hamburger",
    "a monochrome emoji of a penguin",
    "a noto emoji of a red heart",
    "a flat emoji of a blue circle on a yellow background",
)


@dataclass(frozen=True)
class Part:
    """One part of the model: where training leaves it, and where it lies in an assembled model."""

    trained: str
    shipped: str

    @property
    def step(self) -> str:
        """The training step that makes it: a folder below the work folder."""
        return self.trained.split("/")[0]


PARTS = {
    "unet": Part("unet/unet", "unet"),
    "vae": Part("vae/vae", "vae"),
    "text_encoder": Part("clip/text_encoder", "text_encoder"),
    "tokenizer": Part("clip/tokenizer", "tokenizer"),
    "clip_image": Part("clip/judge/clip_image.safetensors", "judge/clip_image.safetensors"),
    "clip_text": Part("clip/judge/clip_text.safetensors", "judge/clip_text.safetensors"),
    "attributes": Part("judge/attributes.safetensors", "judge/attributes.safetensors"),
}


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
        places = [work / part.trained, *([base / part.shipped] if base else [])]
        here = next((place for place in places if place.exists()), None)
        if here is None:
            raise FileNotFoundError(
                f"there is no {name} in {work / part.trained}; run the step {part.step!r} first, "
                "or name a model to take it from with --base"
            )
        found[name] = here
    return found


def held_out(pictures: Pictures, base: Path | None) -> list[Key]:
    """Which combinations no part has seen: those of the curated world, or of the base that gives some parts.

    Args:
        pictures: all that the builder rendered.
        base: an assembled model, or None.
    """
    if base:
        return [tuple(key) for key in json.loads((base / "world.json").read_text())["held_out"]]
    return sorted({record.key for record in world.split(pictures)[1].records})


def assemble(parts: dict[str, Path], out: Path, unseen: Sequence[Key]) -> None:
    """Write the pipeline, the judges and ``world.json``; the folder appears whole or not at all.

    Args:
        parts: from ``find_parts``.
        out: the folder to write; an old one is replaced.
        unseen: from ``held_out``.

    Raises:
        ValueError: when the result is larger than ``LIMIT``.
    """
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    half: dict[str, Any] = {"dtype": torch.float16, "low_cpu_mem_usage": False}
    with no_bars():
        pipeline: Network = StableDiffusionPipeline(
            vae=AutoencoderKL.from_pretrained(parts["vae"], **half),
            text_encoder=CLIPTextModel.from_pretrained(parts["text_encoder"], dtype=torch.float16),
            tokenizer=CLIPTokenizer.from_pretrained(parts["tokenizer"]),
            unet=UNet2DConditionModel.from_pretrained(parts["unet"], **half),
            scheduler=DDIMScheduler(**SCHEDULE),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipeline.save_pretrained(partial)
    _forget_paths(partial)
    _save_judge(parts, partial / "judge")
    _write(partial / "world.json", describe(unseen))
    _write(partial / "training.json", {name: _history(name, path) for name, path in parts.items()})
    size = sum(path.stat().st_size for path in partial.rglob("*") if path.is_file())
    if size > LIMIT:
        shutil.rmtree(partial)
        raise ValueError(f"{out.name} takes {size:,} bytes; at most {LIMIT:,} can ship")
    _swap(partial, out)


def describe(unseen: Sequence[Key]) -> dict[str, Any]:
    """What the model paints: concepts, styles, people's attributes, held-out combinations, wordings."""
    return {
        "name": "emoji",
        "guidance": GUIDANCE,
        "steps": STEPS,
        "styles": world.STYLES,
        "genders": world.GENDERS,
        "skins": world.SKINS,
        "backgrounds": sorted(BACKGROUNDS),
        "concepts": world.CONCEPTS,
        "people": sorted(world.PEOPLE),
        "common": world.COMMON,
        "held_out": unseen,
        "templates": TEMPLATES,
        "prompts": PROMPTS,
    }


def _save_judge(parts: dict[str, Path], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("clip_image", "clip_text", "attributes"):
        save_file(_half(load_file(parts[name])), folder / f"{name}.safetensors")
    older = parts["attributes"].with_name(
        "config.json"
    )  # a judge that was not trained here has its own labels
    labels = json.loads(older.read_text())["labels"] if older.is_file() else train_judge.LABELS
    config = {"clip": train_clip.SHAPE, "attributes": train_judge.SHAPE, "labels": labels}
    _write(folder / "config.json", config)


def _history(name: str, path: Path) -> dict[str, Any]:
    """How a part was trained here: steps and minutes; empty when it comes from elsewhere."""
    part = PARTS[name]
    if not path.as_posix().endswith(part.trained):
        return {}
    run = path.parents[len(Path(part.trained).parts) - 2] / "run.json"
    kept = json.loads(run.read_text()) if run.is_file() else None
    return {"steps": kept["step"], "minutes": round(kept["seconds"] / 60, 1)} if kept else {}


def _swap(new: Path, out: Path) -> None:
    old = out.with_name(out.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    new.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def _write(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=1) + "\n")


def _half(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.half().contiguous() for name, tensor in tensors.items()}


def _forget_paths(folder: Path) -> None:
    """Drop the name of the folder each part was read from: it means nothing elsewhere."""
    for path in folder.rglob("*.json"):
        if path.name == "tokenizer.json":
            continue
        config = json.loads(path.read_text())
        if isinstance(config, dict) and config.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(config, indent=2) + "\n")
