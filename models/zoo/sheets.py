"""Many small pictures in one lossless image file."""

from __future__ import annotations

import io
import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor

SIDE = 64
COLUMNS = 25


def packed(pictures: Tensor, kind: str) -> bytes:
    """One image file of pictures, row by row.

    Args:
        pictures: ``[picture, channel, 64, 64]`` as uint8; channels are 1 (0 or 255), 3 or 4 (with opacity).
        kind: "PNG" or "WEBP"; both keep every value.
    """
    n, channels = pictures.shape[:2]
    rows = math.ceil(n / COLUMNS)
    full = torch.zeros(rows * COLUMNS, channels, SIDE, SIDE, dtype=torch.uint8)
    full[:n] = pictures
    sheet = full.view(rows, COLUMNS, channels, SIDE, SIDE).permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)
    image = Image.fromarray(sheet.squeeze(-1).numpy())
    image = image.convert("1") if channels == 1 else image
    out = io.BytesIO()
    options = {"lossless": True, "exact": True, "method": 6, "quality": 100} if kind == "WEBP" else {}
    image.save(out, kind, optimize=True, **options)
    return out.getvalue()


def unpacked(file: bytes, number: int) -> Tensor:
    """The first pictures of such a file, ``[number, channel, 64, 64]`` as uint8."""
    with Image.open(io.BytesIO(file)) as image:
        pixels = np.asarray(image.convert("L") if image.mode == "1" else image)
    sheet = torch.from_numpy(pixels.copy()).view(pixels.shape[0], pixels.shape[1], -1)
    rows, columns = sheet.shape[0] // SIDE, sheet.shape[1] // SIDE
    pictures = sheet.view(rows, SIDE, columns, SIDE, -1).permute(0, 2, 4, 1, 3)
    return pictures.flatten(0, 1)[:number].contiguous()
