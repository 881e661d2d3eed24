"""The maps of an explanation that are no information: attention, concepts, gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from ..analysis.attribution.attention_maps import word_maps
from ..analysis.attribution.concepts import concept_maps
from ..analysis.attribution.gradients.attributing import attribute
from ..analysis.attribution.passenger import double_blocks
from ..analysis.information.words import Word, without
from ..models.base import Model
from ..models.progress import Progress, called, part
from ..probes.denoising_errors import Strata
from ..probes.trace import Trace

LEVELS = (-1.0, 1.0)
"""Log-SNR at which concepts and gradients are looked at: somewhat more noise than picture, and less."""
GRADIENT_ROWS = 9
"""Rows of one word's gradient at one level."""
REST = "background"
"""What competes with the words where concepts share a softmax."""
STOPS = 8
"""Noise levels at which attention looks at a picture that no run has made."""


@dataclass(frozen=True, eq=False)
class Looking:
    """What is looked at.

    Args:
        model: an opened model.
        prompt: the text.
        words: those that are mapped.
        seed: of the run, or of the noise on a given picture.
        size: height and width of the maps.
    """

    model: Model
    prompt: str
    words: Sequence[Word]
    seed: int
    size: tuple[int, int]

    @property
    def names(self) -> list[str]:
        """The words as they are named."""
        return [w.name for w in self.words]

    def attention(
        self, images: Tensor | None, run: dict[str, Any], progress: Progress
    ) -> tuple[xr.DataArray, Trace]:
        """Where words are read [step, word, y, x]: at the steps of a run, or at levels of a given picture."""
        levels = None
        if images is not None:
            middles, _ = Strata(levels=STOPS).middles(self.model)
            levels = [self.model.step_at(log_snr=a) for a in middles]
        found = word_maps(
            self.model,
            [self.prompt],
            self.names,
            seeds=[self.seed],
            images=images,
            levels=levels,
            time="each",
            size=self.size,
            progress=called(progress, "where words are read"),
            **run,
        )
        return found.maps.isel(sample=0, drop=True).transpose("step", "word", "y", "x"), found.run

    def concepts(self, picture: Tensor, progress: Progress) -> Any:
        """Where the model sees what each word names, [word, y, x]."""
        texts = list(dict.fromkeys(w.text for w in self.words))
        rest = [REST] if double_blocks(self.model) and REST not in texts else []
        found = concept_maps(
            self.model,
            [self.prompt],
            [*texts, *rest],
            seeds=[self.seed],
            images=picture,
            levels=self._levels(),
            size=self.size,
            progress=called(progress, "where concepts are"),
        )
        maps = found.maps.isel(sample=0)
        return np.stack([maps.sel(concept=w.text).values for w in self.words])

    def gradients(self, picture: Tensor, progress: Progress) -> Any:
        """Which places decide how far each word moves the prediction, [word, y, x]."""
        maps, calls = [], len(self.words) * len(LEVELS)
        for i, word in enumerate(self.words):
            total = torch.zeros(()).numpy()
            for j, level in enumerate(self._levels()):
                found = attribute(
                    self.model,
                    [self.prompt],
                    of="shift",
                    to="latents",
                    method="gradient",
                    against=without(self.prompt, [word]),
                    seeds=[self.seed],
                    images=picture,
                    at=level,
                    progress=part(progress, i * len(LEVELS) + j, 1, calls, "gradients"),
                )
                total = total + found.values.values[0, 0]
            maps.append(total)
        return np.stack(maps)

    def _levels(self) -> list[Any]:
        low, high = self.model.levels[0].log_snr, self.model.levels[-1].log_snr
        return [self.model.step_at(log_snr=min(max(a, low), high)) for a in LEVELS]
