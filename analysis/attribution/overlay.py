"""Word maps laid over pictures, as small tensors: what a notebook shows without a figure."""

from __future__ import annotations

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

_ORANGE = (1.0, 0.42, 0.08)
_MOST = 0.8  # how much of the colour covers the picture where a word is read most


def overlays(
    image: Float[Tensor, "3 height width"], maps: xr.DataArray
) -> Float[Tensor, "word 3 height width"]:
    """Return a picture once for each word, grey, with orange where the word is read.

    All words are coloured from the least to the most of all: a word that is read little looks pale.

    Args:
        image: in 0..1.
        maps: dims (word, y, x), of any size.
    """
    image = image.detach().float().cpu()
    heat = torch.from_numpy(maps.transpose("word", "y", "x").values).float()[:, None]
    heat = F.interpolate(heat, image.shape[1:], mode="bilinear")
    low, high = heat.min(), heat.max()
    share = _MOST * (heat - low) / (high - low).clamp(min=1e-12)
    grey = 0.25 + 0.7 * image.mean(0).expand(3, -1, -1)
    return grey * (1 - share) + torch.tensor(_ORANGE).view(3, 1, 1) * share
