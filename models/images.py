"""Pictures from outside: what a model can take, and in which scale."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from .errors import UsageError, WrongTypeError


def checked_images(images: Tensor, channels: int, size: Sequence[int], name: str) -> Tensor:
    """Return pictures in 0..1 as pictures in -1..1, which autoencoders and pixel models take.

    Args:
        images: [sample, channel, height, width] in 0..1.
        channels: how many the model takes.
        size: height and width that it takes, in pixels; empty if it takes no pictures.
        name: of the model.

    Raises:
        TypeError: for anything but a tensor of floating-point numbers.
        ValueError: for another shape, values that are not finite, and values beyond 0..1.
    """
    if not isinstance(images, Tensor) or not images.is_floating_point():
        kind = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise WrongTypeError(
            f"images are {kind}; give a float tensor [sample, {channels}, height, width] in 0..1; of a PIL "
            "image: torch.from_numpy(numpy.asarray(image).copy()).permute(2, 0, 1)[None] / 255"
        )
    if not size:
        raise UsageError(f"{name} paints no pictures, so it can encode none")
    shape = tuple(images.shape)
    if images.ndim != 4 or shape[1] != channels or not shape[0]:
        fix = " (add the sample axis: images[None])" if images.ndim == 3 else ""
        raise UsageError(f"images are {shape}; give [sample, {channels}, height, width]{fix}")
    height, width = size
    if shape[2:] != (height, width):
        raise UsageError(
            f"images are {shape[2]} by {shape[3]} pixels, but {name} takes {height} by {width}; resize them: "
            f"torch.nn.functional.interpolate(images, ({height}, {width}), mode='bicubic', antialias=True)"
            f".clamp(0, 1), or open the model for their size: load(..., size={shape[2:]})"
        )
    if not torch.isfinite(images).all():
        raise UsageError("images hold NaN or infinite values; give numbers in 0..1")
    low, high = images.detach().min().item(), images.detach().max().item()
    if low < 0 or high > 1:
        raise UsageError(
            f"images lie in {low:g}..{high:g}; give them in 0..1: (images + 1) / 2 of -1..1, "
            "images / 255 of bytes"
        )
    return 2.0 * images.float() - 1.0


def to_array(images: Float[Tensor, "sample 3 height width"]) -> xr.DataArray:
    """Return pictures in 0..1 as dims (sample, y, x, channel), rounded to what a PNG holds."""
    pixels = images.detach().float().clamp(0, 1).mul(255).round().permute(0, 2, 3, 1).cpu().numpy()
    return xr.DataArray(pixels.astype(np.uint8), dims=("sample", "y", "x", "channel"))
