"""Sanity checks of maps (Adebayo et al. 2018, arXiv:1810.03292): what should destroy a map, has to.

A map of what a model has learned of a word is another one when the model's weights are random, and when the
word is another. Likeness is Spearman's rank correlation over the places of a map: 1 is the same order of
places, 0 is none in common. A map that stays alike says nothing of the model, or nothing of the word.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pandas as pd
import torch
import xarray as xr
from scipy.stats import rankdata
from torch import Tensor

from ....models.arguments import checked
from ....models.base import Model
from ....models.drawn import Figure
from ....models.errors import UsageError
from ....models.html import frame_table, panel
from ....models.progress import Progress, showing
from ....models.run.noise import generators
from ....models.store.provenance import provenance
from ....models.synthetic.random_weights import randomised
from ....models.text.prompt import places
from ...intervals import interval
from ...scores import Scores
from ...stored import Stored
from .placed import Array, MapsOf, Placed, check_methods, sized_maps

CHECKS = ("weights", "words")


@dataclass(frozen=True, eq=False)
class SanityChecks(Stored):
    """How alike maps stay to what they were.

    Args:
        data: ``likeness`` (method, check, scene): rank correlation with the map of the trained model and the
            right word, when the denoiser's "weights" are shuffled, and when the "words" are others. NaN where
            a map is the same everywhere.
    """

    needed: ClassVar[frozenset[str]] = frozenset({"likeness"})

    def __repr__(self) -> str:
        mean = self.data["likeness"].mean(["method", "scene"])
        told = ", ".join(f"{c} {float(mean.sel(check=c)):.2f}" for c in CHECKS)
        return f"SanityChecks({self.data.sizes['method']} methods; likeness after other {told})"

    def _repr_html_(self) -> str:
        frame = self.to_frame()
        return panel(repr(self), frame_table(frame))

    @checked
    def to_frame(self, level: float = 0.95) -> pd.DataFrame:
        """Return a table with a row for each method and check: mean, low and high over pictures.

        Args:
            level: how often such intervals hold the true mean.
        """
        found = interval(self.data["likeness"], ["scene"], level).to_dataframe().reset_index()
        return found[["method", "check", "mean", "low", "high"]]

    @checked
    def plot(self) -> Figure:
        """Return a map of methods by checks, ``analysis.plots.effect_map``."""
        likeness = self.data["likeness"].rename(method="site", scene="draw")
        return Scores(likeness).plot("likeness")


@checked
def sanity_checks(
    model: Model,
    scenes: Sequence[Placed],
    methods: Mapping[str, MapsOf],
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> SanityChecks:
    """Say how alike maps stay when weights, and when words, are others.

    Args:
        model: what the maps are of; it stays as it is.
        scenes: pictures with their words; the masks are not looked at.
        methods: by name, what makes maps, as in ``evaluate_maps``.
        seed: of the shuffle of weights, and of the draw of words.
        progress: called with (done, total, what); without it a bar comes by itself.

    Raises:
        ValueError, TypeError: as ``evaluate_maps``; and where no other words are there to draw from.
    """
    check_methods(methods, scenes)
    ways = {"weights": (randomised(model, seed), scenes), "words": (model, with_other_words(scenes, seed))}
    found = np.empty((len(methods), len(CHECKS), len(scenes)))
    with showing(progress) as show:
        for m, (name, maps_of) in enumerate(methods.items()):
            own = maps_of(model, scenes)
            for c, check in enumerate(CHECKS):
                found[m, c] = likeness(name, own, maps_of(*ways[check]), scenes)
                show(m * len(CHECKS) + c + 1, len(methods) * len(CHECKS), "sanity checks")
    coords = {"method": list(methods), "check": list(CHECKS)}
    about = provenance(model, scenes=len(scenes), seed=seed)
    return SanityChecks(xr.Dataset({"likeness": (("method", "check", "scene"), found)}, coords, about))


def likeness(name: str, maps: Sequence[Tensor], others: Sequence[Tensor], scenes: Sequence[Placed]) -> Array:
    """Return the rank correlation of two stacks of maps, averaged over the words of each picture."""
    pairs = zip(sized_maps(name, maps, scenes), sized_maps(name, others, scenes), strict=True)
    return np.array([np.mean([_ranks_agree(a, b) for a, b in zip(*pair, strict=True)]) for pair in pairs])


def _ranks_agree(a: Array, b: Array) -> float:
    x, y = rankdata(a), rankdata(b)
    if x.std() == 0 or y.std() == 0:
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1])


@checked
def with_other_words(scenes: Sequence[Placed], seed: int = 0) -> list[Placed]:
    """Return the same pictures, said to show what others show: each word, in the caption too, is another one.

    Args:
        scenes: pictures with their words.
        seed: of the draw.

    Raises:
        ValueError: for a picture for which the others have too few other words.
    """
    (generator,) = generators([seed])
    every = list(dict.fromkeys(w for scene in scenes for w in scene.words))
    made = []
    for scene in scenes:
        pool = [w for w in every if w not in scene.words and w not in scene.caption]
        if len(pool) < len(scene.words):
            raise UsageError(
                f"there are {len(pool)} words to take the place of {scene.words}; give more pictures"
            )
        drawn = [pool[i] for i in torch.randperm(len(pool), generator=generator).tolist()]
        others = tuple(drawn[: len(scene.words)])
        made.append(replace(scene, caption=_renamed(scene.caption, scene.words, others), words=others))
    return made


def _renamed(caption: str, words: Sequence[str], others: Sequence[str]) -> str:
    spots = [(a, b, new) for word, new in zip(words, others, strict=True) for a, b in places(caption, word)]
    for a, b, new in sorted(spots, reverse=True):
        caption = caption[:a] + new + caption[b:]
    return caption
