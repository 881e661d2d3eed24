"""What somebody gets who starts from a picture that is half there, and how deep a change goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from ...analysis.erasure.sources import middles, noised
from ...models.base import Model
from ...models.run.levels import Step
from ...models.run.state import SamplerState
from ..case import Setup

BINS = 4
"""At so many steps of a run the network is asked what it says."""
APART = 70_000
"""Seeds of the noise on half-made pictures; those of the pictures are small."""
BATCH = 16


@dataclass(frozen=True, eq=False)
class Halves:
    """Pictures of the plain model, noised in part.

    Args:
        model: an opened model.
        start: the middle of a run, one row for each picture.
        noised: at each of some steps the pictures as they would be there.
        guidance: of the runs.
    """

    model: Model
    start: SamplerState
    noised: tuple[tuple[Step, Tensor], ...]
    guidance: float

    @classmethod
    @torch.no_grad()
    def of(cls, setup: Setup, images: Float[Tensor, "picture channel height width"]) -> Halves:
        """Noise pictures.

        Raises:
            StateError: for a model that cannot encode pictures.
        """
        model, steps = setup.model, setup.model.steps(setup.case.steps)
        seeds = [APART + i for i in range(len(images))]
        images = images.to(torch.float32)
        start = model.start_at(images, len(steps) // 2, seeds, steps=setup.case.steps)
        latents = torch.cat([model.encode_image(some) for some in images.split(BATCH)])
        at = middles(steps, min(BINS, len(steps)))
        half = [noised(model, latents, step, [s + i + 1 for s in seeds])[0] for i, step in enumerate(at)]
        return cls(model, start, tuple(zip(at, half, strict=True)), setup.guidance)

    @torch.no_grad()
    def painted(self, texts: Sequence[str]) -> Float[Tensor, "picture 3 height width"]:
        """Paint the second half of the run as the model is now, a text for each picture."""
        rows, found = len(self.start.latents), []
        for first in range(0, rows, BATCH):
            some = range(first, min(first + BATCH, rows))
            start = self.start.rows(some)
            run = self.model.sample(
                [texts[i] for i in some], seeds=start.seeds, start=start, guidance=self.guidance
            )
            *_, last = run
            found.append(self.model.decode(last.latents).cpu())
        return torch.cat(found)

    @torch.no_grad()
    def said(self, texts: Sequence[str]) -> Float[Tensor, "picture number"]:
        """What the network says of each picture at all noise levels, unguided, as the model is now."""
        read = dict(zip(once := list(dict.fromkeys(texts)), self.model.encode(once), strict=True))
        prompts, parts = [read[t] for t in texts], []
        for step, x in self.noised:
            some = range(0, len(x), BATCH)
            said = [self.model.denoise(x[i : i + BATCH], step, prompts[i : i + BATCH]) for i in some]
            parts.append(torch.cat(said).flatten(1).double().cpu())
        return torch.cat(parts, 1)


def depth(
    before: Float[Tensor, "picture number"],
    after: Float[Tensor, "picture number"],
    outright: Float[Tensor, "picture number"],
) -> NDArray[Any]:
    """Return how much of the way from the old text to the wanted one a change goes inside, [picture].

    0: of a picture of the old the network says what it said; 1: all that it would say if it were asked for
    what is wanted. Below 0 it goes the other way. A picture that may look right can come from a change that
    goes a small part of that way.
    """
    way = outright - before
    found: NDArray[Any] = (((after - before) * way).sum(1) / way.square().sum(1)).numpy()
    return np.where(way.square().sum(1).numpy() > 0, found, np.nan)
