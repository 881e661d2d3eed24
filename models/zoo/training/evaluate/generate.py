"""Pictures from an assembled model, by the plain diffusers pipeline; what was made once is kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
from rich.progress import track
from safetensors.torch import load_file, save_file
from torch import Tensor

from ....opening.folder import read_folder
from ...folders import place, shared
from ..assemble import GUIDANCE, STEPS
from ..fit.training import Network
from ..recipes import RECIPES, Recipe


def generate(folder: Path, prompts: Sequence[str], kept: Path, batch: int = 50) -> Tensor:
    """Generate one picture for each prompt with the plain diffusers pipeline; prompt i has seed i.

    ``STEPS`` steps of DPM-Solver++ (flow matching: Euler), guidance ``GUIDANCE``; DDIM without text.

    Args:
        folder: an assembled model.
        prompts: what to paint; empty for a model that reads no text.
        kept: a folder; each batch is kept there, under the hash of weights and prompts.
        batch: pictures at once.

    Returns:
        ``[prompt, 3, height, width]`` in 0..1.
    """
    kept.mkdir(parents=True, exist_ok=True)
    recipe = RECIPES[json.loads((folder / "world.json").read_text())["name"]]
    painter = weights_hash(folder)
    pipeline: Network = None
    parts = []
    for start in track(range(0, len(prompts), batch), "generating"):
        texts = list(prompts[start : start + batch])
        name = hashlib.sha256(json.dumps([painter, start, texts]).encode()).hexdigest()[:16]
        file = kept / f"{name}.safetensors"
        if not file.is_file():
            pipeline = pipeline or _open(folder, recipe)
            seeds = range(start, start + len(texts))
            save_file({"pictures": _paint(pipeline, recipe, texts, seeds)}, file.with_suffix(".partial"))
            file.with_suffix(".partial").replace(file)
        parts.append(load_file(file)["pictures"])
    return torch.cat(parts)


def weights_hash(folder: Path) -> str:
    """SHA-256 of what paints: denoiser, autoencoder, text encoder."""
    digest = hashlib.sha256()
    for part in ("unet", "transformer", "vae", "text_encoder"):
        for file in sorted(place(folder, part).glob("*.safetensors")):
            digest.update(file.read_bytes())
    return digest.hexdigest()


def starting_noise(seed: int) -> torch.Generator:
    """A generator of its own for each picture, so that batches do not matter."""
    return torch.Generator().manual_seed(seed)


def _paint(pipeline: Network, recipe: Recipe, texts: Sequence[str], seeds: Sequence[int]) -> Tensor:
    generators = [starting_noise(seed) for seed in seeds]
    if recipe.reads_text:
        given = {"prompt": texts, "guidance_scale": GUIDANCE, "output_type": "pt", **recipe.call}
        made = pipeline(generator=generators, num_inference_steps=STEPS, **given).images
    else:
        out = pipeline(
            batch_size=len(texts), generator=generators, num_inference_steps=STEPS, output_type="np"
        )
        made = torch.from_numpy(out.images).permute(0, 3, 1, 2)
    pictures: Tensor = made.float().cpu().contiguous()
    return pictures


def _open(folder: Path, recipe: Recipe) -> Network:
    pipeline: Network = read_folder(folder, folder.name, torch.float32, elsewhere=shared(folder))
    diffuses = isinstance(pipeline.scheduler, DDIMScheduler)
    if recipe.reads_text and diffuses:
        pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to("cuda" if torch.cuda.is_available() else "cpu")
