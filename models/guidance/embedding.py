"""Guidance towards pictures that a judge embeds like others: LDFaceNet's identity term, for any judge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from ..arguments import check_fields
from ..errors import UsageError
from .acting import ActsAt, check_acts
from .gradient import Estimate, Gradient
from .value import check_strength


@runtime_checkable
class Embedder(Protocol):
    """What is asked of a judge: cosines of pictures; the embedded one and ``clip_judge`` can say them."""

    def similarity(self, images: Tensor, others: Tensor, /) -> Tensor:
        """Cosine of every picture with every other picture, [sample, other]."""


@dataclass(frozen=True)
class EmbeddingMatch(Gradient):
    """Guide by the cosine of a judge's embeddings: of the picture that is made, and of a reference.

    After the identity loss of LDFaceNet (Mehta et al. 2024), with any judge in place of a face network.

    Args:
        judge: the embedded one, or ``clip_judge(...)``.
        pictures: one for all samples, or one a sample, [sample, 3, height, width] in 0..1.
        scale: how strongly.
        normalised: make the change in eps ``scale`` times as long as eps itself.
        steps: at which steps it acts, or a factor for each.

    Raises:
        ValueError: for a scale that is not finite, and for another number of pictures (in a run).
    """

    judge: Embedder
    pictures: Tensor
    scale: float
    normalised: bool = False
    steps: ActsAt = None

    def __post_init__(self) -> None:
        check_fields(self)
        check_strength("EmbeddingMatch", "scale", self.scale)
        check_acts("EmbeddingMatch", self.steps)

    def __repr__(self) -> str:
        shape = list(self.pictures.shape)
        return f"EmbeddingMatch({self.judge!r}, {shape}, {self.scale}, steps={self.steps})"

    def score(self, seen: Estimate) -> Tensor:
        """Return each picture's cosine with its reference."""
        n = len(seen.latents)
        if len(self.pictures) not in (1, n):
            raise UsageError(f"{len(self.pictures)} pictures for {n} samples; give one, or one a sample")
        found = self.judge.similarity(seen.images, self.pictures)
        return found[:, 0] if len(self.pictures) == 1 else found.diagonal()
