"""What a judge says of the pictures of some texts, and how far these are from others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from ..analysis.judging import check_sees, fits
from ..models.judges.choosing import TextJudge
from ..models.judges.distances import frechet, kernel_distance
from .concept import Probe
from .painting import shown


@runtime_checkable
class FeatureJudge(Protocol):
    """A judge that has features for distances between sets of pictures."""

    def features(self, images: Tensor) -> Tensor:
        """What it reads from pictures, [sample, feature]."""


@dataclass(frozen=True, eq=False)
class Judged:
    """What a judge says, text by text and seed by seed.

    Args:
        shown: 1 where the picture fits what is wanted better than all others, else 0; NaN where the judge
            has no opinion.
        fit: how well it fits what is wanted; of a CLIP the CLIP score.
        features: of the pictures; None where the judge has none.
    """

    shown: Float[Tensor, "probe seed"]
    fit: Float[Tensor, "probe seed"]
    features: Float[Tensor, "probe seed feature"] | None

    def tensors(self) -> dict[str, Tensor]:
        """All arrays, for a store."""
        found = {"shown": self.shown, "fit": self.fit}
        return found if self.features is None else {**found, "features": self.features}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Judged:
        """What ``tensors`` gave."""
        return cls(tensors["shown"], tensors["fit"], tensors.get("features"))


def judge(
    by: TextJudge, probes: Sequence[Probe], pixels: Shaped[Tensor, "probe seed 3 height width"]
) -> Judged:
    """Ask a judge about the pictures of some texts.

    Raises:
        ValueError, TypeError: for a judge that answers in another shape.
    """
    images = [shown(x) for x in pixels]
    said = [fits(by, x, [p.wanted, *p.others]) for x, p in zip(images, probes, strict=True)]
    wins = torch.stack(
        [(x[:, 0] > x[:, 1:].amax(1)).float().where(~x.isnan().any(1), torch.nan) for x in said]
    )
    features = None
    if isinstance(by, FeatureJudge):
        with torch.no_grad():
            features = torch.stack([by.features(x).float().cpu() for x in images])
    return Judged(wins, torch.stack([x[:, 0] for x in said]), features)


def check_judge(by: TextJudge, probes: Sequence[Probe], pixels: Sequence[Tensor]) -> None:
    """Raise ValueError for a judge that says the same of all pictures of a text, where these differ."""
    asked = [
        torch.stack([fits(by, shown(x), [p.wanted, p.others[0]]) for x, p in zip(one, probes, strict=True)])
        for one in pixels
    ]
    check_sees(by, torch.stack(asked), {str(i): shown(one) for i, one in enumerate(pixels)})


def distances(after: Tensor | None, wanted: Tensor | None) -> dict[str, float | None]:
    """Return the Fréchet and the kernel distance of features [..., feature] from those of their fellows."""
    if after is None or wanted is None or after.numel() // after.shape[-1] < 2:
        return {"fid": None, "kid": None}
    x, y = after.flatten(0, -2), wanted.flatten(0, -2)
    return {"fid": frechet(x, y), "kid": kernel_distance(x, y)}
