"""Judge generated pictures, also of combinations never trained on, and held-out real ones."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
from PIL import Image, ImageDraw
from rich.progress import track
from safetensors.torch import load_file, save_file
from torch import Tensor

from ...judges import Judge
from ...quiet import no_bars
from . import composed, world
from .assemble import GUIDANCE, STEPS
from .captions import caption
from .data import SIZE, Pictures, Record
from .sampling import weights
from .scoring import Scores, Share, frechet, nearest, score
from .training import Network


@dataclass(frozen=True)
class Evaluation:
    """What was made, for which records, and what the judges say.

    Attributes:
        pictures: generated, ``[n, 3, 64, 64]`` in 0..1; the last fifth asks for held-out combinations.
        records: what each was asked to show.
        scores: name of a set of pictures to its scores.
        frechet: name of a set of pictures to its Fréchet distance from the training pictures.
        composed: generated and real scenes: grounds, pairs, counts; empty where none were trained.
    """

    pictures: Tensor
    records: tuple[Record, ...]
    scores: dict[str, Scores]
    frechet: dict[str, float]
    composed: dict[str, dict[str, Share]] = field(default_factory=dict)


def evaluate(folder: Path, judge: Judge, pictures: Pictures, number: int, kept: Path) -> Evaluation:
    """Generate pictures and judge them; held-out ones on their own where ``world.json`` says there are any.

    Args:
        folder: the pipeline.
        judge: its judge.
        pictures: all that the builder rendered; split here.
        number: how many to generate; a fifth of them asks for combinations that the scripts hold out.
        kept: a folder for pictures made so far: a stopped evaluation goes on from there.

    Raises:
        ValueError: for fewer than 10 pictures.
    """
    if number < 10:
        raise ValueError(f"an evaluation needs at least 10 pictures, got {number}")
    train, out = world.split(pictures)
    trained = number - number // 5
    asked = [*draw(train.records, trained), *draw(out.records, number // 5, seed=1)]
    made = generate(folder, [caption(record) for record in asked], kept)
    some = torch.multinomial(weights(train.records), min(1000, len(train)), generator=_generator(0))
    white = train.on_white()
    sets = {"generated": (made, asked), "real": (white[some], [train.records[i] for i in some.tolist()])}
    distances = {"generated": frechet(judge, made, white), "half of the real ones": _halves(judge, white)}
    told = json.loads((folder / "world.json").read_text())
    if told["held_out"]:
        sets |= {
            "generated, held-out combinations": (made[trained:], asked[trained:]),
            "real, held-out combinations": (out.on_white(), list(out.records)),
        }
        distances["real, held-out combinations"] = frechet(judge, out.on_white(), white)
    read = nearest(judge, torch.cat([shown for shown, _ in sets.values()]), (*train.records, *out.records))
    scores = {}
    for name, (shown, records) in sets.items():
        scores[name], read = score(judge, shown, records, read[: len(shown)]), read[len(shown) :]
    scenes = composed.scenes(train, number // 8) if told["backgrounds"] else []
    painted = generate(folder, [scene.caption for scene in scenes], kept) if scenes else made[:0]
    found = composed.score(judge, painted, scenes, train.records) if scenes else {}
    return Evaluation(made, tuple(asked), scores, distances, found)


def _halves(judge: Judge, real: Tensor) -> float:
    """The distance that sampling alone makes: of one random half of the real pictures from the other."""
    order = torch.randperm(len(real), generator=_generator(0))
    return frechet(judge, real[order[::2]], real[order[1::2]])


def draw(records: Sequence[Record], number: int, seed: int = 0) -> list[Record]:
    """Records to ask for: every concept as often as any other, in random order."""
    rng = random.Random(seed)
    by_concept: dict[str, list[Record]] = {}
    for record in records:
        by_concept.setdefault(record.concept, []).append(record)
    names = sorted(by_concept)
    rng.shuffle(names)
    return [rng.choice(by_concept[names[i % len(names)]]) for i in range(number)]


def generate(folder: Path, prompts: Sequence[str], kept: Path, batch: int = 50) -> Tensor:
    """Generate one picture for each prompt with the plain diffusers pipeline; prompt i has seed i.

    DPM-Solver++, ``STEPS`` steps, guidance ``GUIDANCE``.

    Args:
        folder: the pipeline.
        prompts: what to paint.
        kept: a folder; each batch is kept there, under the hash of weights and prompts.
        batch: pictures at once.

    Returns:
        ``[prompt, 3, 64, 64]`` in 0..1.
    """
    kept.mkdir(parents=True, exist_ok=True)
    painter = weights_hash(folder)
    pipeline: Network = None
    parts = []
    for start in track(range(0, len(prompts), batch), "generating"):
        texts = list(prompts[start : start + batch])
        name = hashlib.sha256(json.dumps([painter, start, texts]).encode()).hexdigest()[:16]
        file = kept / f"{name}.safetensors"
        if not file.is_file():
            pipeline = pipeline or _open(folder)
            out = pipeline(
                texts,
                num_inference_steps=STEPS,
                guidance_scale=GUIDANCE,
                height=SIZE,
                width=SIZE,
                generator=[_generator(start + i) for i in range(len(texts))],
                output_type="pt",
            ).images
            save_file({"pictures": out.float().cpu().contiguous()}, file.with_suffix(".partial"))
            file.with_suffix(".partial").replace(file)
        parts.append(load_file(file)["pictures"])
    return torch.cat(parts)


def weights_hash(folder: Path) -> str:
    """SHA-256 of what paints: denoiser, autoencoder, text encoder."""
    digest = hashlib.sha256()
    for part in ("unet", "vae", "text_encoder"):
        for file in sorted((folder / part).glob("*.safetensors")):
            digest.update(file.read_bytes())
    return digest.hexdigest()


def sheet(evaluation: Evaluation, real: Pictures, path: Path, rows: int = 4, columns: int = 12) -> None:
    """Draw the first generated pictures, each row above the real pictures of the same captions."""
    place = {record: i for i, record in enumerate(real.records)}
    columns = min(columns, len(evaluation.records))
    shown: list[tuple[Tensor, str]] = []
    for row in range(min(rows, len(evaluation.records) // columns)):
        part = slice(row * columns, (row + 1) * columns)
        records = evaluation.records[part]
        originals = real.on_white(torch.tensor([place[r] for r in records]))
        shown += zip(evaluation.pictures[part], [f"{r.style}: {r.name}" for r in records], strict=True)
        shown += zip(originals, ["(real)"] * len(records), strict=True)
    side, line = SIZE * 2, 14
    canvas = Image.new("RGB", (columns * side, math.ceil(len(shown) / columns) * (side + line)), "white")
    pen = ImageDraw.Draw(canvas)
    for i, (picture, label) in enumerate(shown):
        pixels = (picture.permute(1, 2, 0).clamp(0, 1) * 255).round().byte().numpy()
        left, top = i % columns * side, i // columns * (side + line)
        canvas.paste(Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC), (left, top))
        pen.text((left + 2, top + side), label[: side // 6], fill="black")
    canvas.quantize(128).save(path, optimize=True)


def _open(folder: Path) -> Network:
    with no_bars():
        pipeline: Network = StableDiffusionPipeline.from_pretrained(
            folder, dtype=torch.float32, low_cpu_mem_usage=False
        )
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to("cuda" if torch.cuda.is_available() else "cpu")


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
