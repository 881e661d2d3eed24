"""Pictures of which it is known where things are, and how well maps find them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from ....models.arguments import check_fields, checked
from ....models.base import Model
from ....models.errors import UsageError, WrongTypeError
from ....models.html import Brief
from ....models.zoo.evaluation_data import Scene

Array: TypeAlias = NDArray[np.float64]
THRESHOLDS = np.linspace(0.05, 0.95, 19)
"""Where a map may be cut, between its least and its most."""


@dataclass(frozen=True, eq=False, repr=False)
class Placed(Brief):
    """A picture, what is said of it, and where that is.

    Args:
        picture: in 0..1.
        caption: which holds all the words.
        words: of each thing.
        masks: where it is.

    Raises:
        ValueError: for masks of another number or size, empty ones, and words that the caption lacks.
    """

    picture: Float[Tensor, "3 height width"]
    caption: str
    words: tuple[str, ...]
    masks: Bool[Tensor, "word height width"]

    def __post_init__(self) -> None:
        check_fields(self)
        size = tuple(self.picture.shape[-2:])
        if not self.words or tuple(self.masks.shape) != (len(self.words), *size):
            raise UsageError(
                f"masks have shape {tuple(self.masks.shape)} for {len(self.words)} words and a picture of "
                f"{size}; give one for each word, of the picture's size"
            )
        if self.masks.dtype != torch.bool:
            raise WrongTypeError(f"masks are of {self.masks.dtype}; give True where a thing is: masks > 0.5")
        for word, mask in zip(self.words, self.masks, strict=True):
            if word not in self.caption:
                raise UsageError(f"{word!r} is not in the caption {self.caption!r}")
            if not bool(mask.any()):
                raise UsageError(f"the mask of {word!r} in {self.caption!r} is empty; leave that word out")

    @staticmethod
    @checked
    def of(scene: Scene) -> Placed:
        """Return a scene of the evaluation data; things of one name have one mask."""
        words = tuple(dict.fromkeys(s.words for s in scene.subjects))
        masks = torch.stack(
            [scene.masks[[i for i, s in enumerate(scene.subjects) if s.words == w]].any(0) for w in words]
        )
        return Placed(scene.picture, scene.caption, words, masks)


MapsOf: TypeAlias = Callable[[Model, Sequence[Placed]], Sequence[Tensor]]
"""Makes maps: for each picture [word, y, x], of any size, higher where the word is."""


def sized_maps(name: str, maps: Sequence[Tensor], scenes: Sequence[Placed]) -> list[Array]:
    """Return the maps of each picture in its size, bilinearly, [word, height, width].

    Raises:
        TypeError: for what are no tensors.
        ValueError: for another number of pictures or words, and NaN or infinite values.
    """
    if len(maps) != len(scenes):
        raise UsageError(f"{name!r} has maps of {len(maps)} pictures; there are {len(scenes)}")
    made = []
    for own, scene in zip(maps, scenes, strict=True):
        if not isinstance(own, Tensor) or own.ndim != 3 or len(own) != len(scene.words):
            said = tuple(own.shape) if isinstance(own, Tensor) else type(own).__name__
            raise WrongTypeError(
                f"{name!r} returned {said} for {scene.caption!r}; return a tensor [word, y, x] of its "
                f"{len(scene.words)} words"
            )
        if not bool(own.isfinite().all()):
            raise UsageError(f"the maps {name!r} of {scene.caption!r} hold NaN or infinite values")
        big = F.interpolate(own[None].double(), scene.masks.shape[-2:], mode="bilinear")[0]
        made.append(big.cpu().numpy())
    return made


def measured(heat: Array, mask: NDArray[np.bool_]) -> tuple[Array, float, float]:
    """Return IoU at each threshold, the share of highest places that lie inside, and average precision.

    A map that is the same everywhere has nothing above a threshold (IoU 0) and all places are highest.
    """
    from sklearn.metrics import average_precision_score  # noqa: PLC0415  # slow to import

    low, high = heat.min(), heat.max()
    scaled = (heat - low) / (high - low) if high > low else np.zeros_like(heat)
    above = scaled[None] > THRESHOLDS[:, None, None]
    both, either = (above & mask).sum((1, 2)), (above | mask).sum((1, 2))
    hit = float(mask[heat == high].mean())
    return both / either, hit, float(average_precision_score(mask.ravel(), heat.ravel()))


def check_methods(methods: Mapping[str, object], scenes: Sequence[Placed]) -> None:
    """Raise ValueError for no methods, and fewer pictures than two halves take."""
    if not methods:
        raise UsageError("methods is empty; give some: {'words': maps_of}")
    if len(scenes) < 4:
        raise UsageError(
            f"{len(scenes)} pictures; thresholds are fixed on one half and tried on the other: 4"
        )
