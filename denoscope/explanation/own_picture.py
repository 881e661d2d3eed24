"""The picture that is explained: one of a run, or the user's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from ..models.base import Model
from ..models.errors import MissingFileError, UsageError


def own_picture(model: Model, image: Tensor | str | Path) -> Tensor:
    """Return a picture as the model takes it, [1, channel, height, width] in 0..1.

    A file is scaled to the model's size, but not squeezed; where it is transparent it becomes white. A tensor
    is taken as it is; ``encode_image`` says what is wrong with it.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for what is no picture, and one of other proportions.
    """
    if isinstance(image, Tensor):
        return image[None] if image.ndim == 3 else image
    path = Path(image)
    if not path.is_file():
        raise MissingFileError(f"there is no picture {str(path)!r}; give the path of a PNG or JPEG file")
    try:
        with Image.open(path) as opened:
            layers = opened.convert("RGBA")
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
        raise UsageError(
            f"{str(path)!r} is no picture that can be read ({str(error).splitlines()[0]}); give a PNG or JPEG"
        ) from error
    ground = Image.new("RGBA", layers.size, "white")
    pixels = np.asarray(Image.alpha_composite(ground, layers).convert("RGB"), dtype=np.float32) / 255
    return _sized(model, torch.from_numpy(pixels).permute(2, 0, 1)[None], path)


def _sized(model: Model, picture: Tensor, path: Path) -> Tensor:
    if len(model.size) != 2:
        return picture  # it takes none, and says so
    (height, width), (own_height, own_width) = picture.shape[2:], model.size
    if abs(height * own_width - width * own_height) > max(own_height, own_width, height, width):
        raise UsageError(
            f"{str(path)!r} is {width} x {height} pixels (width x height), but {model.name} paints "
            f"{own_width} x {own_height}; crop it to these proportions first"
        )
    if (height, width) == (own_height, own_width):
        return picture
    return F.interpolate(picture, (own_height, own_width), mode="bicubic", antialias=True).clamp(0, 1)
