"""Sheets of samples: generated pictures in rows, beside real ones where there are captions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ..data.pictures import SIZE, Pictures
from .evaluation import Evaluation


def pairs(evaluation: Evaluation, real: Pictures, path: Path, rows: int = 4, columns: int = 12) -> None:
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
    _draw(shown, columns, path)


def plain(pictures: Tensor, path: Path, rows: int = 5, columns: int = 12) -> int:
    """Draw the first pictures with their seeds; return how many."""
    shown = [(picture, str(seed)) for seed, picture in enumerate(pictures[: rows * columns])]
    _draw(shown, min(columns, len(shown)), path)
    return len(shown)


def _draw(shown: Sequence[tuple[Tensor, str]], columns: int, path: Path) -> None:
    side, line = SIZE * 2, 14
    canvas = Image.new("RGB", (columns * side, math.ceil(len(shown) / columns) * (side + line)), "white")
    pen = ImageDraw.Draw(canvas)
    for i, (picture, label) in enumerate(shown):
        pixels = (picture.permute(1, 2, 0).clamp(0, 1) * 255).round().byte().numpy()
        left, top = i % columns * side, i // columns * (side + line)
        canvas.paste(Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC), (left, top))
        pen.text((left + 2, top + side), label[: side // 6], fill="black")
    canvas.quantize(128).save(path, optimize=True)
