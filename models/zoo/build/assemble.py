"""Put the trained parts together: a plain ``StableDiffusionPipeline`` folder in half precision, with its judges."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from . import train_clip, train_judge, world
from .compose import BACKGROUNDS
from .data import Pictures
from .train_unet import SCHEDULE

GUIDANCE = 4.0
STEPS = 20
LIMIT = 80_000_000
"""Most bytes that all embedded models may take together."""

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


def assemble(parts: dict[str, Path], out: Path, pictures: Pictures, *, world_note: str = "") -> None:
    """Write the pipeline, the judges and ``world.json``.

    Args:
        parts: folders of ``unet``, ``vae``, ``text_encoder``, ``tokenizer``, and of the judge's files ``clip_image``,
            ``clip_text`` and ``attributes``.
        out: the folder to write.
        pictures: those of the world, for its list of held-out combinations.
        world_note: a remark kept in ``world.json``.

    Raises:
        ValueError: when the result is larger than ``LIMIT``.
    """
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(parts["vae"]),
        text_encoder=CLIPTextModel.from_pretrained(parts["text_encoder"]),
        tokenizer=CLIPTokenizer.from_pretrained(parts["tokenizer"]),
        unet=UNet2DConditionModel.from_pretrained(parts["unet"]),
        scheduler=DDIMScheduler(**SCHEDULE),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(dtype=torch.float16)
    pipeline.save_pretrained(out)
    _forget_paths(out)
    _save_judge(parts, out / "judge")
    text = json.dumps(describe(pictures, world_note), indent=1)
    (out / "world.json").write_text(text + "\n")
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    if size > LIMIT:
        raise ValueError(f"{out.name} takes {size:,} bytes; at most {LIMIT:,} can ship")


def describe(pictures: Pictures, note: str = "") -> dict[str, Any]:
    """What the model paints: concepts, styles, people's attributes, held-out combinations, example prompts."""
    _, out = world.split(pictures)
    return {
        "name": "emoji",
        "note": note,
        "guidance": GUIDANCE,
        "steps": STEPS,
        "styles": world.STYLES,
        "genders": world.GENDERS,
        "skins": world.SKINS,
        "backgrounds": sorted(BACKGROUNDS),
        "concepts": world.CONCEPTS,
        "people": sorted(world.PEOPLE),
        "common": world.COMMON,
        "held_out": sorted({r.key for r in out.records}),
        "prompts": PROMPTS,
    }


def _save_judge(parts: dict[str, Path], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("clip_image", "clip_text", "attributes"):
        save_file(_half(load_file(parts[name])), folder / f"{name}.safetensors")
    config = {
        "clip": train_clip.SHAPE,
        "attributes": train_judge.SHAPE,
        "labels": train_judge.LABELS,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")


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
