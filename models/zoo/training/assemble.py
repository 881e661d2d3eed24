"""Put the parts of a model together: a plain diffusers folder in half precision, with its judges."""

from __future__ import annotations

import filecmp
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ...errors import UsageError
from ...opening.quiet import no_bars
from .. import ZOO
from .data import world
from .data.captions import COLOURS
from .data.compose import BACKGROUNDS
from .data.pictures import Pictures
from .fit import train_clip, train_judge
from .parts import JUDGES, LATENT, history
from .recipes import RECIPES, TOKENS, Recipe, open_part

Key = tuple[str, ...]
"""Concept, style, gender, skin."""

GUIDANCE = 4.0
STEPS = 20
LIMIT = 95_000_000
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


def held_out(pictures: Pictures, base: Path | None) -> list[Key]:
    """Which combinations no part has seen: those of the curated world, or of the base that gives some parts.

    Args:
        pictures: all that the builder rendered.
        base: an assembled model, or None.
    """
    told = json.loads((base / "world.json").read_text()) if base else {}
    if "held_out" in told:  # a model without text lists none
        return [tuple(key) for key in told["held_out"]]
    return sorted({record.key for record in world.split(pictures)[1].records})


def assemble(name: str, parts: Mapping[str, Path], out: Path, unseen: Sequence[Key]) -> None:
    """Write the pipeline, its judges and ``world.json``; the folder appears whole or not at all.

    Args:
        name: of the model, out of ``RECIPES``.
        parts: from ``find_parts``.
        out: the folder to write; an old one is replaced.
        unseen: from ``held_out``.

    Raises:
        ValueError: when the result is larger than ``LIMIT``.
    """
    recipe = RECIPES[name]
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    with no_bars():
        opened = {
            part: open_part(recipe, part, parts[part], torch.float16)
            for part in (recipe.denoiser, *recipe.frozen)
        }
        recipe.pipeline(opened, recipe.objective.scheduler()).save_pretrained(partial)
    _forget_paths(partial)
    if recipe.judges:
        _save_judge(parts, partial / "judge")
    common = _shared(recipe, partial)
    for part in common:
        shutil.rmtree(partial / part)
    _write(partial / "world.json", describe(name, unseen) | ({"shared": common} if common else {}))
    _write(partial / "training.json", {part: history(part, path) for part, path in parts.items()})
    size = sum(path.stat().st_size for path in partial.rglob("*") if path.is_file())
    if size > LIMIT:
        shutil.rmtree(partial)
        raise UsageError(f"{out.name} takes {size:,} bytes; at most {LIMIT:,} can ship")
    _swap(partial, out)


def describe(name: str, unseen: Sequence[Key]) -> dict[str, Any]:
    """What a model paints: concepts, styles, people's attributes, held-out combinations, wordings."""
    recipe = RECIPES[name]
    told: dict[str, Any] = {
        "name": name,
        "judge": name if recipe.judges else "emoji",
        "guidance": GUIDANCE if recipe.reads_text else 1.0,
        "steps": STEPS,
        "styles": world.STYLES,
        "genders": world.GENDERS,
        "skins": world.SKINS,
        "people": world.PEOPLE,
        "professions": world.PROFESSIONS,
    }
    if not recipe.reads_text:
        return told | {
            "styles": [s for s in world.STYLES if s != "monochrome"],
            "concepts": sorted(world.PEOPLE),
        }
    return (
        told
        | {
            "colours": COLOURS,
            "backgrounds": sorted(BACKGROUNDS),
            "things": world.THINGS,
            "concepts": world.CONCEPTS,
            "common": world.COMMON,
            "held_out": unseen,
            "templates": TEMPLATES,
            "prompts": PROMPTS,
        }
        | ({"text_tokens": TOKENS} if "clip_text" in recipe.frozen else {})
    )


def _shared(recipe: Recipe, made: Path) -> dict[str, str]:
    """Which parts need not be stored: equal, file by file, to another one of the model or to one that ships.

    Returns:
        Name of each and where it lies: a part of this model, or ``model/part``.
    """
    own = sorted(path.name for path in made.iterdir() if path.is_dir() and path.name != "scheduler")
    homes = {f"{recipe.shares}/{part}": ZOO[recipe.shares] / part for part in LATENT if recipe.shares}
    found: dict[str, str] = {}
    for i, part in enumerate(own):
        earlier = {name: made / name for name in own[:i] if name not in found}
        places = (homes | earlier).items()
        same = next((name for name, place in places if _equal(made / part, place)), None)
        if same:
            found[part] = same
    return found


def _equal(first: Path, second: Path) -> bool:
    if not second.is_dir():
        return False
    names = [sorted(path.name for path in folder.iterdir()) for folder in (first, second)]
    return names[0] == names[1] and not any(filecmp.cmpfiles(first, second, names[0], shallow=False)[1:])


def _save_judge(parts: Mapping[str, Path], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in JUDGES:
        save_file(_half(load_file(parts[name])), folder / f"{name}.safetensors")
    older = parts["attributes"].with_name(
        "config.json"
    )  # a judge that was not trained here has its own labels
    labels = json.loads(older.read_text())["labels"] if older.is_file() else train_judge.LABELS
    config = {"clip": train_clip.SHAPE, "attributes": train_judge.SHAPE, "labels": labels}
    _write(folder / "config.json", config)


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
    """Drop where each part was read from, and whether that was offline: it means nothing elsewhere."""
    for path in folder.rglob("*.json"):
        if path.name == "tokenizer.json":
            continue
        config = json.loads(path.read_text())
        foreign = {"_name_or_path", "local_files_only"} & config.keys() if isinstance(config, dict) else ()
        for key in foreign:
            del config[key]
        if foreign:
            path.write_text(json.dumps(config, indent=2) + "\n")
