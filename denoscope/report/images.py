"""Pictures as arrays and files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from PIL import Image
from torch import Tensor

from ..models.images import to_array
from ..models.store.disk import write_bytes


def save_pictures(images: Tensor, folder: Path, names: Sequence[str]) -> list[Path]:
    """Write one PNG for each picture, each whole or not at all.

    Raises:
        OSError: if they cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{name}.png" for name in names]
    for pixels, file in zip(to_array(images).values, files, strict=True):
        write_bytes(file, _png(pixels))
    return files


def save_sheet(pictures: xr.DataArray, columns: int, path: Path) -> Path:
    """Write pictures, dims (picture, y, x, channel), as one PNG with so many in a row.

    Raises:
        OSError: if it cannot be written.
    """
    rows = pictures.values.reshape(-1, columns, *pictures.shape[1:])
    write_bytes(path, _png(np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0)))
    return path


def _png(pixels: np.ndarray[Any, Any]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
