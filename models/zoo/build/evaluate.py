"""Judge generated pictures and held-out real ones, and write the model card, a sample sheet and the loss curves."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
from PIL import Image, ImageDraw
from rich.progress import track
from torch import Tensor

from ...judges import Judge
from . import world
from .assemble import GUIDANCE, STEPS
from .captions import caption
from .data import SIZE, Pictures, Record
from .sampling import weights


@dataclass(frozen=True)
class Share:
    """A share of right answers with how many were asked."""

    right: float
    n: int

    def __str__(self) -> str:
        """Percent with a 95 % Wilson interval."""
        if not self.n:
            return "-"
        z, p, n = 1.96, self.right, self.n
        centre, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        low, high = ((centre + side * half) / (1 + z * z / n) for side in (-1, 1))
        return f"{100 * p:.1f} % ({100 * low:.0f}-{100 * high:.0f}, n={n})"


def sample(folder: Path, prompts: Sequence[str], *, batch: int = 50, seed: int = 0) -> Tensor:
    """Generate one picture for each prompt with the plain diffusers pipeline, ``[n, 3, 64, 64]`` in 0..1."""
    pipeline = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.to("cuda" if torch.cuda.is_available() else "cpu")
    parts = []
    for start in track(range(0, len(prompts), batch), "sampling"):
        texts = list(prompts[start : start + batch])
        out = pipeline(
            texts,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            height=SIZE,
            width=SIZE,
            generator=[torch.Generator().manual_seed(seed + start + i) for i in range(len(texts))],
            output_type="pt",
        ).images
        parts.append(out.float().cpu())
    return torch.cat(parts)


def draw(records: Sequence[Record], number: int, seed: int = 0) -> list[Record]:
    """Records to ask for: concepts evenly (no doubled weights), then pictures of a concept evenly."""
    rng = random.Random(seed)
    by_concept: dict[str, list[Record]] = {}
    for record in records:
        by_concept.setdefault(record.concept, []).append(record)
    names = sorted(by_concept)
    rng.shuffle(names)
    return [rng.choice(by_concept[names[i % len(names)]]) for i in range(number)]


@torch.no_grad()
def score(judge: Judge, pictures: Tensor, records: Sequence[Record]) -> dict[str, Any]:
    """What the judge says: shares of right answers, and the CLIP score."""
    wanted = {
        "style": [r.style for r in records],
        "concept": [r.concept for r in records],
        "gender": [r.gender if r.is_person else None for r in records],
        "skin": [world.skin_name(r) for r in records],
    }
    right = {name: _right(judge, pictures, name, labels) for name, labels in wanted.items()}
    common = [r.concept in world.COMMON for r in records]
    people = [r.is_person for r in records]
    binary = [label if label != "person" else None for label in wanted["gender"]]
    return {
        "style": _share(right["style"]),
        "concept, top-1 of all": _share(right["concept"]),
        "concept, people": _share(_only(right["concept"], people)),
        "concept, things": _share(_only(right["concept"], [not p for p in people])),
        "concept, 50 common ones (top-1 of all)": _share(_only(right["concept"], common)),
        "concept, 50 common ones (top-1 of the 50)": _share(_among(judge, pictures, wanted["concept"])),
        "gender, three-way": _share(right["gender"]),
        "gender, man or woman asked for": _share(_right(judge, pictures, "gender", binary)),
        "skin": _share(right["skin"]),
        "CLIP score": f"{judge.clip_score(pictures, [caption(r) for r in records]).mean():.3f}",
    }


@torch.no_grad()
def frechet(judge: Judge, first: Tensor, second: Tensor) -> float:
    """Fréchet distance between two sets of pictures on the judge's features."""
    moments = []
    for pictures in (first, second):
        features = judge.features(pictures).double().numpy()
        moments.append((features.mean(0), np.cov(features, rowvar=False)))
    (mean, cov), (mean_b, cov_b) = moments
    roots = np.sqrt(np.linalg.eigvals(cov @ cov_b).real.clip(min=0)).sum()
    return float(((mean - mean_b) ** 2).sum() + np.trace(cov) + np.trace(cov_b) - 2 * roots)


def sheet(pictures: Tensor, labels: Sequence[str], path: Path, columns: int = 10, scale: int = 2) -> None:
    """Write pictures as one PNG, each with a line of text."""
    side, line = SIZE * scale, 14
    rows = math.ceil(len(pictures) / columns)
    canvas = Image.new("RGB", (columns * side, rows * (side + line)), "white")
    pen = ImageDraw.Draw(canvas)
    for i, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        pixels = (picture.permute(1, 2, 0).clamp(0, 1) * 255).round().byte().numpy()
        left, top = i % columns * side, i // columns * (side + line)
        canvas.paste(Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC), (left, top))
        pen.text((left + 2, top + side), label[: side // 6], fill="black")
    canvas.quantize(128).save(path, optimize=True)


def evaluate(folder: Path, judge: Judge, pictures: Pictures, number: int = 1000) -> dict[str, Any]:
    """Judge ``number`` generated pictures (a fifth asks for held-out combinations) and held-out real ones."""
    train, out = world.split(pictures)
    asked = draw(train.records, number * 4 // 5), draw(out.records, number - number * 4 // 5, seed=1)
    everyone = [*asked[0], *asked[1]]
    made = sample(folder, [caption(r) for r in everyone])
    n = len(asked[0])
    real = torch.multinomial(weights(train.records), 1000, generator=torch.Generator().manual_seed(0))
    return {
        "generated, trained combinations": score(judge, made[:n], asked[0]),
        "generated, held-out combinations": score(judge, made[n:], asked[1]),
        "real, held-out combinations": score(judge, out.on_white(), out.records),
        "real, trained combinations": score(judge, train.on_white(real), [train.records[i] for i in real.tolist()]),
        "fid": frechet(judge, made[:n], train.on_white()),
        "fid of held-out real pictures": frechet(judge, out.on_white(), train.on_white()),
        "pictures": made,
        "records": everyone,
    }


def dump(results: dict[str, Any], path: Path) -> None:
    """Keep the figures as JSON."""
    figures = {k: v for k, v in results.items() if k not in ("pictures", "records")}
    path.write_text(json.dumps(figures, indent=1, default=str) + "\n")


def _right(judge: Judge, pictures: Tensor, attribute: str, wanted: Sequence[str | None]) -> list[bool | None]:
    labels = judge.labels(attribute)
    answers = [labels[i] for i in judge.probabilities(pictures, attribute).argmax(1).tolist()]
    return [None if want is None else want == answer for want, answer in zip(wanted, answers, strict=True)]


def _among(judge: Judge, pictures: Tensor, wanted: Sequence[str]) -> list[bool | None]:
    labels = judge.labels("concept")
    columns = [labels.index(name) for name in world.COMMON]
    answers = judge.probabilities(pictures, "concept")[:, columns].argmax(1).tolist()
    known: Callable[[str], bool] = world.COMMON.__contains__
    return [world.COMMON[a] == w if known(w) else None for a, w in zip(answers, wanted, strict=True)]


def _only(right: Sequence[bool | None], keep: Sequence[bool]) -> list[bool | None]:
    return [r if k else None for r, k in zip(right, keep, strict=True)]


def _share(right: Sequence[bool | None]) -> Share:
    counted = [r for r in right if r is not None]
    return Share(sum(counted) / max(1, len(counted)), len(counted))


def sample_sheet(results: dict[str, Any], pictures: Pictures, path: Path, columns: int = 12, rows: int = 4) -> None:
    """Draw the first generated pictures, each above the real picture of the same caption."""
    place = {record: i for i, record in enumerate(pictures.records)}
    shown, labels = [], []
    for row in range(rows):
        for made in (True, False):
            for i in range(row * columns, (row + 1) * columns):
                record = results["records"][i]
                real = pictures.on_white(torch.tensor([place[record]]))[0]
                shown.append(results["pictures"][i] if made else real)
                labels.append(f"{record.style}: {record.name}" if made else "(real)")
    sheet(torch.stack(shown), labels, path, columns)
