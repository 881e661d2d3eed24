"""How different two pictures look at a glance: their colours, cell by cell."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

CELLS = 8
AT_A_GLANCE = 10.0
"""Colours this far apart are told apart at a glance; 2.3 is what can just be noticed (Mahy et al. 1994)."""

_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
_WHITE = (0.950456, 1.0, 1.088754)  # D65


def colour_difference(
    images: Float[Tensor, "sample 3 height width"], others: Float[Tensor, "sample 3 height width"]
) -> Float[Tensor, " sample"]:
    """Return how far pictures look from others: CIE 1976 colour difference, the mean over 8 x 8 cells.

    Each picture is averaged down to the cells first, so fine detail does not count, and colour, place and
    number of things do. 0 is the same; black beside white is 100.

    Args:
        images: sRGB in 0..1.
        others: as many.
    """
    first, second = (_lab(F.adaptive_avg_pool2d(_linear(x.double()), CELLS)) for x in (images, others))
    return (first - second).square().sum(1).sqrt().mean((1, 2))


def _linear(x: Tensor) -> Tensor:
    """Light of sRGB values."""
    return torch.where(x <= 0.04045, x / 12.92, ((x.clamp(min=0) + 0.055) / 1.055) ** 2.4)


def _lab(light: Tensor) -> Tensor:
    """CIE 1976 L*, a*, b* of linear sRGB, [sample, 3, y, x]."""
    xyz = torch.einsum("ij,njyx->niyx", light.new_tensor(_XYZ), light)
    ratio = xyz / light.new_tensor(_WHITE).view(3, 1, 1)
    f = torch.where(
        ratio > (6 / 29) ** 3, ratio.clamp(min=1e-9) ** (1 / 3), ratio / (3 * (6 / 29) ** 2) + 4 / 29
    )
    x, y, z = f.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)
