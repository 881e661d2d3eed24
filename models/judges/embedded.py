"""Frozen judges of the embedded world: does a picture show what was asked for?

A judge is a small CLIP (a text encoder and an image tower) and an attribute classifier, both trained on real
pictures only. Everything is differentiable with respect to the images: wrap calls in ``torch.no_grad()`` when
no gradient is wanted. 1,000 pictures take about a second on one CPU core.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from transformers import CLIPTextModel, CLIPTokenizer

from .. import zoo
from ..arguments import checked
from ..errors import UsageError
from ..opening.quiet import no_bars
from ..store.fingerprint import network_hash
from .labelled import Labelled
from .preparing import check_pictures

SIZE = 64
"""Side of the pictures that the judges look at; others are resized."""


class ImageTower(nn.Module):
    """Convolutional image encoder, ``[sample, 3, 64, 64]`` in -1..1 to ``[sample, dim]``."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_conv(3, width, 8, 4),
            *_conv(width, width, 3, 1),
            *_conv(width, 2 * width, 3, 2),
            *_conv(2 * width, 2 * width, 3, 1),
            *_conv(2 * width, 4 * width, 3, 2),
            *_conv(4 * width, 4 * width, 3, 1),
            nn.AvgPool2d(2),
            nn.Flatten(),
        )
        self.head = nn.Sequential(nn.Linear(16 * width, 2 * dim), nn.SiLU(), nn.Linear(2 * dim, dim))

    def forward(self, images: Tensor) -> Tensor:
        """Encode pictures."""
        out: Tensor = self.head(self.body(images))
        return out


class Attributes(nn.Module):
    """One image tower with a linear head for each attribute."""

    def __init__(self, width: int, dim: int, labels: Mapping[str, Sequence[str]]) -> None:
        super().__init__()
        self.tower = ImageTower(width, dim)
        self.heads = nn.ModuleDict({name: nn.Linear(dim, len(values)) for name, values in labels.items()})

    @checked
    def features(self, images: Tensor) -> Tensor:
        """What the heads read."""
        return F.silu(self.tower(images))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Logits of every attribute."""
        features = self.features(images)
        return {name: head(features) for name, head in self.heads.items()}


@dataclass(frozen=True, repr=False)
class Judge(Labelled):
    """Says how well pictures fit texts, and what they show.

    Pictures are ``[sample, 3, height, width]`` in 0..1, of any size.
    """

    tokenizer: Any
    text_encoder: nn.Module
    text_projection: Tensor
    image_tower: ImageTower
    classifier: Attributes
    vocabulary: dict[str, tuple[str, ...]]

    def __repr__(self) -> str:
        known = ", ".join(f"{len(labels)} of {name}" for name, labels in self.vocabulary.items())
        return f"Judge(embedded; labels: {known})"

    @cached_property
    def about(self) -> dict[str, str]:
        """For provenance: its kind, and a hash of its weights."""
        parts = (self.text_encoder, self.image_tower, self.classifier)
        weights = {f"{i}.{name}": t for i, part in enumerate(parts) for name, t in part.state_dict().items()}
        hashed = network_hash({**weights, "text_projection": self.text_projection})
        return {"name": "the embedded judge", "kind": type(self).__name__, "weights": hashed}

    @checked
    def similarity(self, images: Tensor, others: Sequence[str] | Tensor) -> Tensor:
        """CLIP cosine of every picture with every text, or with every other picture.

        Args:
            images: pictures.
            others: texts; or pictures, for how alike two are in what they show rather than in their pixels.

        Returns:
            ``[sample, other]`` in -1..1. Of real pictures, eight in ten of one concept in two styles have
            cosines of 0.66 to 0.92, of two concepts in one style -0.29 to 0.51, in two styles -0.38 to 0.40.

        Raises:
            ValueError: for pictures of another shape.

        >>> judge, pictures = load_judge("emoji"), torch.rand(3, 3, 64, 64)
        >>> judge.similarity(pictures, pictures[:2]).shape, judge.similarity(pictures, ["a dog"]).shape
        (torch.Size([3, 2]), torch.Size([3, 1]))
        """
        seen = self._embed_images(images)
        read = self._embed_images(others) if isinstance(others, Tensor) else self._embed_texts(others)
        return seen @ read.T

    @checked
    def clip_score(self, images: Tensor, texts: Sequence[str]) -> Tensor:
        """CLIP cosine of picture i with text i, ``[sample]``."""
        if not images.ndim or len(images) != len(texts):
            raise UsageError(
                f"give one text for each picture: got pictures {list(images.shape)} and {len(texts)} texts"
            )
        return (self._embed_images(images) * self._embed_texts(texts)).sum(-1)

    @checked
    def probabilities(self, images: Tensor, attribute: str) -> Tensor:
        """Probability of each label of an attribute (style, concept, gender, skin), ``[sample, label]``."""
        self.labels(attribute)
        logits: Tensor = self.classifier.heads[attribute](self.features(images))
        return logits.softmax(-1)

    @checked
    def features(self, images: Tensor) -> Tensor:
        """What the classifier reads, ``[sample, feature]``: for Fréchet distances."""
        return self.classifier.features(_prepare(images, self.text_projection))

    def _embed_images(self, images: Tensor) -> Tensor:
        return F.normalize(self.image_tower(_prepare(images, self.text_projection)), dim=-1)

    def _embed_texts(self, texts: Sequence[str]) -> Tensor:
        if not texts:
            raise UsageError("texts is empty; give at least one")
        tokens = self.tokenizer(list(texts), padding="max_length", truncation=True, return_tensors="pt")
        device = self.text_projection.device
        pooled = self.text_encoder(tokens.input_ids.to(device)).pooler_output
        return F.normalize(pooled @ self.text_projection.T, dim=-1)


@checked
def load_judge(name: str = "emoji") -> Judge:
    """Load the judge that ships with an embedded model.

    Args:
        name: a name from the zoo.

    Returns:
        The judge, in float32 on the CPU, frozen. Models of one world share the judge of ``emoji``; loaded
        once, later calls return the same object.

    >>> judge = load_judge("emoji")
    >>> judge.clip_score(torch.rand(2, 3, 64, 64), ["a noto emoji of a dog", "a red heart"]).shape
    torch.Size([2])
    """
    told = json.loads((zoo.folder(name) / "world.json").read_text())
    return _read_once(zoo.folder(told["judge"]))


@lru_cache(maxsize=4)
def _read_once(folder: Path) -> Judge:
    return read_judge(folder)


@checked
def read_judge(folder: Path) -> Judge:
    """Read a judge from a model's folder: ``judge/``, ``text_encoder/`` and ``tokenizer/``."""
    config = json.loads((folder / "judge" / "config.json").read_text())
    with torch.device("meta"):  # nothing is drawn: the weights are read
        tower = ImageTower(**config["clip"])
        classifier = Attributes(**config["attributes"], labels=config["labels"])
    tower.load_state_dict(_weights(folder / "judge" / "clip_image.safetensors"), assign=True)
    classifier.load_state_dict(_weights(folder / "judge" / "attributes.safetensors"), assign=True)
    with no_bars():
        text_encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)
    for part in (tower, classifier, text_encoder):
        part.eval().requires_grad_(False)
    return Judge(
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        text_encoder=text_encoder,
        text_projection=_weights(folder / "judge" / "clip_text.safetensors")["weight"],
        image_tower=tower,
        classifier=classifier,
        vocabulary={name: tuple(labels) for name, labels in config["labels"].items()},
    )


def _conv(inputs: int, outputs: int, kernel: int, stride: int) -> list[nn.Module]:
    padding = (kernel - stride + 1) // 2 if kernel > 3 else 1
    return [nn.Conv2d(inputs, outputs, kernel, stride, padding), nn.GroupNorm(8, outputs), nn.SiLU()]


def _prepare(images: Tensor, like: Tensor) -> Tensor:
    images = check_pictures(images).to(like)
    if images.shape[-2:] != (SIZE, SIZE):
        images = F.interpolate(images, (SIZE, SIZE), mode="bilinear", antialias=True, align_corners=False)
    return images * 2 - 1


def _weights(path: Path) -> dict[str, Tensor]:
    return {name: tensor.float() for name, tensor in load_file(path).items()}
