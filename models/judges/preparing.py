"""Pictures as a vision tower of transformers reads them, in torch, so that gradients reach them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from ..errors import MissingFileError, UsageError
from ..store.schema import read_json

FILES = ("preprocessor_config.json", "processor_config.json")
"""Where transformers writes how pictures are prepared; the second holds the tokenizer's settings too."""

BATCH = 32
"""Pictures that a vision tower sees at once."""

_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "CLIP": {"resample": 3, "do_center_crop": True},
    "Siglip": {"resample": 3, "do_center_crop": False},
    "ViT": {"resample": 2, "do_center_crop": False},
    "DeiT": {"resample": 3, "do_center_crop": True},
    "Bit": {"resample": 3, "do_center_crop": True},
}
"""What the image processors do where a file is silent; all resize, crop and normalise, and nothing else."""
_MODES = {2: "bilinear", 3: "bicubic"}
_SUFFIX = re.compile("(ImageProcessor|FeatureExtractor)(Fast|Pil)?$")


@dataclass(frozen=True)
class Preparation:
    """How pictures are prepared: resized, cut out in the middle, normalised.

    Equal to transformers' own processors but for their rounding to 8 bits after each pass of resizing. What
    overshoots is cut off between the passes, as there; rows come first, while Pillow takes the columns of
    some tall pictures first.

    Args:
        size: height and width to resize to; or the length of the shorter side. None leaves them.
        crop: height and width of what is cut out in the middle; None leaves all.
        mode: bilinear or bicubic; antialiased.
        mean: of each channel; subtracted.
        std: of each channel; divided by.
    """

    size: tuple[int, int] | int | None
    crop: tuple[int, int] | None
    mode: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, images: Tensor, like: Tensor) -> Tensor:
        """Prepare pictures.

        Args:
            images: [sample, 3, height, width] in 0..1.
            like: says on which device and in which number format the result is wanted.

        Raises:
            ValueError: for pictures of another shape.
        """
        x = check_pictures(images).to(like.device, torch.float32)
        if self.size is not None:
            height, width = self._resized(x.shape[-2], x.shape[-1])
            for size in ((x.shape[-2], width), (height, width)):  # rows first, and cut off, as in 8 bits
                if size != x.shape[-2:]:
                    x = F.interpolate(x, size, mode=self.mode, antialias=True, align_corners=False).clamp(
                        0, 1
                    )
        if self.crop is not None:
            top, left = ((n - c) // 2 for n, c in zip(x.shape[-2:], self.crop, strict=True))
            x = x[..., top : top + self.crop[0], left : left + self.crop[1]]
        mean, std = (x.new_tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        return ((x - mean) / std).to(like.dtype)

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        if isinstance(self.size, tuple):
            return self.size
        short = min(height, width)
        n = self.size or short
        return (n, int(n * width / short)) if height == short else (int(n * height / short), n)

    @property
    def result(self) -> tuple[int, int] | None:
        """Height and width of what comes out; None where it depends on the picture."""
        return self.crop or (self.size if isinstance(self.size, tuple) else None)


def in_batches(images: Tensor) -> tuple[Tensor, ...]:
    """Return pictures in parts that a vision tower sees at once.

    Raises:
        ValueError: for another shape, and if there are none.
    """
    if not len(check_pictures(images)):
        raise UsageError(f"there are no pictures to judge: their shape is {list(images.shape)}")
    parts: tuple[Tensor, ...] = images.split(BATCH)
    return parts


def check_pictures(images: Tensor) -> Tensor:
    """Return pictures as they are.

    Raises:
        ValueError: for another shape than [sample, 3, height, width], or numbers that are no fractions.
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise UsageError(f"pictures have shape [sample, 3, height, width], got {list(images.shape)}")
    if not images.is_floating_point():
        raise UsageError(f"pictures are numbers in 0..1, got {images.dtype}; write images.float() / 255")
    return images


def read_preparation(folder: Path, failed: str) -> Preparation:
    """Read how a checkpoint wants its pictures from its folder.

    Args:
        folder: of a checkpoint in transformers' format.
        failed: how an error begins.

    Raises:
        OSError: if the folder does not say.
        ValueError: for a processor that does something else, which nobody should do without a word.
    """
    told = _told(folder, failed)
    kind = _SUFFIX.sub("", str(told.get("image_processor_type") or told.get("feature_extractor_type")))
    if kind not in _DEFAULTS:
        raise UsageError(
            f"{failed}: its pictures are prepared by {kind}, of which nothing is known here (known: "
            f"{', '.join(_DEFAULTS)}); give a function of pictures and texts: callable_judge(function)"
        )
    told = {**_DEFAULTS[kind], **told}
    odd = _odd(told)
    if odd:
        raise UsageError(f"{failed}: its pictures are prepared with {odd}, which cannot be done here")
    plain = not told.get("do_normalize", True)
    try:
        crop = _height_width(told["crop_size"]) if told["do_center_crop"] else None
        size = _size(told["size"], bool(told["do_center_crop"])) if told.get("do_resize", True) else None
        mean, std = (
            ((0.0,) * 3, (1.0,) * 3) if plain else (_three(told[k]) for k in ("image_mean", "image_std"))
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{failed}: what its {FILES[0]} says is not whole: {error}") from None
    smallest = size if isinstance(size, tuple) else (size, size)
    if crop and size is not None and any(c > (s or 0) for c, s in zip(crop, smallest, strict=True)):
        raise UsageError(
            f"{failed}: its pictures are resized to {size} and then cut to {crop}, which is more"
        )
    return Preparation(size, crop, _MODES[told["resample"]], tuple(mean), tuple(std))


def _told(folder: Path, failed: str) -> Mapping[str, Any]:
    for name in FILES:
        if (folder / name).is_file():
            told = read_json((folder / name).read_bytes(), {str: object}, str(folder / name))
            return dict(told.get("image_processor", told))
    raise MissingFileError(
        f"{failed}: {str(folder)!r} has no {FILES[0]}, which says how pictures are prepared; save its "
        "processor there too: processor.save_pretrained(folder)"
    )


def _odd(told: Mapping[str, Any]) -> str:
    """What is asked for and not done here; empty if nothing is."""
    if told["resample"] not in _MODES:
        return f"resample {told['resample']!r}"
    if not told.get("do_rescale", True) or abs(told.get("rescale_factor", 1 / 255) - 1 / 255) > 1e-9:
        return f"rescale_factor {told.get('rescale_factor')!r}"
    return next((key for key in ("do_pad", "crop_pct", "do_thumbnail") if told.get(key)), "")


def _size(told: Any, crops: bool) -> tuple[int, int] | int:
    """Height and width; or the shorter side, which a lone number is where the middle is cut out."""
    if isinstance(told, Mapping) and "shortest_edge" in told:
        return int(told["shortest_edge"])
    return int(told) if crops and isinstance(told, int) else _height_width(told)


def _height_width(told: Any) -> tuple[int, int]:
    if isinstance(told, Mapping):
        return int(told["height"]), int(told["width"])
    return int(told), int(told)


def _three(values: Any) -> tuple[float, ...]:
    found = tuple(float(v) for v in values)
    if len(found) != 3:
        raise UsageError(f"{len(found)} channels, where pictures have 3")
    return found
