"""Pictures of all that changes are tried on, under whatever the model is at the moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from ...analysis.edit_evaluation.painting import Painter
from ...models.errors import DenoscopeError
from ...models.progress import Progress
from ..case import Setup
from .insisting import BATCH, Halves, depth

Pictures = Float[Tensor, "prompt seed channel height width"]


@dataclass(frozen=True)
class Tried:
    """One prompt that changes are tried on.

    Args:
        kind: efficacy, generality, robustness (from a half-noised picture of the old) or specificity.
        template: with ``{}`` for the word.
        word: what the prompt says.
    """

    kind: str
    template: str
    word: str


def prompts_of(setup: Setup) -> list[Tried]:
    """The edited wording, others of it, the same from half-made pictures, and other things."""
    words, about = setup.wording, setup.goal.about
    tried = [Tried("efficacy", t, about) for t in words.efficacy]
    tried += [Tried("generality", t, about) for t in words.generality]
    tried += [Tried("robustness", t, about) for t in words.efficacy]
    tried += [Tried("specificity", t, w) for w, ts in words.neighbourhood.items() for t in ts]
    return tried


@dataclass(frozen=True, eq=False)
class Asked:
    """Which texts are painted.

    Args:
        setup: of the case.
        tried: the prompts.
    """

    setup: Setup
    tried: Sequence[Tried]

    @property
    def texts(self) -> list[str]:
        """What each prompt says."""
        return [self.setup.goal.written(t.template, t.word) for t in self.tried]

    def of(self, *kinds: str) -> list[str]:
        """What the prompts of some kinds say."""
        return [text for t, text in zip(self.tried, self.texts, strict=True) if t.kind in kinds]

    @property
    def from_noise(self) -> list[str]:
        """What is painted from noise, each text once."""
        return list(dict.fromkeys(self.of("efficacy", "generality", "specificity")))

    def rows(self, kind: str) -> list[str]:
        """The text of each picture of a kind: prompt by prompt, seed by seed."""
        return [text for text in self.of(kind) for _ in self.setup.seeds]

    def wanted(self, kind: str) -> list[str]:
        """The text that asks outright for each of them; none where one has none."""
        goal = self.setup.goal
        said = goal.asked if goal.kind == "balance" else (goal.meant,)
        own = [t.template for t in self.tried if t.kind == kind]
        texts = [goal.written(t, said[i % len(said)]) for t in own for i in range(len(self.setup.seeds))]
        return texts if all(texts) else []

    def together(self, made: Mapping[str, Tensor], halves: Halves | None) -> Pictures:
        """Pictures from noise, and from half-made ones, in the order of the prompts."""
        half = iter(self.by_prompt(halves.painted(self.rows("robustness"))) if halves else ())
        pairs = zip(self.tried, self.texts, strict=True)
        return torch.stack([next(half) if t.kind == "robustness" else made[text] for t, text in pairs])

    def by_prompt(self, images: Tensor) -> Tensor:
        """Pictures of some prompts, [prompt, seed, ...]."""
        return images.reshape(-1, len(self.setup.seeds), *images.shape[1:])


@dataclass(frozen=True, eq=False)
class Brush:
    """Paints every prompt with every seed.

    Args:
        asked: the prompts; those that start from half-made pictures are left out where the model cannot
            encode pictures.
        painter: paints from noise.
        halves: the half-made pictures.
        before: all pictures of the plain model.
        said: what the plain model says of the half-made pictures when asked for the old, and for what is
            wanted; None where that has no text.
    """

    asked: Asked
    painter: Painter
    halves: Halves | None
    before: Pictures
    said: tuple[Tensor, Tensor] | None

    @classmethod
    def of(cls, setup: Setup, times: int, progress: Progress) -> Brush:
        """Paint everything with the plain model; ``times`` is how often it is painted in all."""
        asked = Asked(setup, prompts_of(setup))
        total = times * len(asked.from_noise) * len(setup.seeds)
        painter = Painter(setup.model, setup.seeds, setup.case.steps, setup.guidance, BATCH, progress, total)
        made = painter(asked.from_noise)
        own = [made[text] for text in asked.of("efficacy")]
        halves, said = None, None
        try:
            halves = Halves.of(setup, torch.cat(own))
        except DenoscopeError:  # a model that cannot encode pictures
            asked = replace(asked, tried=[t for t in asked.tried if t.kind != "robustness"])
        if halves is not None and (wanted := asked.wanted("efficacy")):
            said = halves.said(asked.rows("efficacy")), halves.said(wanted)
        return cls(asked, painter, halves, asked.together(made, halves), said)

    def painted(self) -> Pictures:
        """Paint everything as the model is now."""
        return self.asked.together(self.painter(self.asked.from_noise), self.halves)

    def outright(self) -> Pictures | None:
        """Pictures of what is wanted, asked for in words; of other things as before. No change can do better.

        Of a balance, each attribute for every other seed.
        """
        kinds, tried = ("efficacy", "generality", "robustness"), self.asked.tried
        wanted = {kind: self.asked.wanted(kind) for kind in kinds}
        if any(not wanted[t.kind] for t in tried if t.kind in wanted):
            return None  # the prompt is the word alone: without it nothing is left to ask for
        own, n = [*wanted["efficacy"], *wanted["generality"]], len(self.asked.setup.seeds)
        made = self.painter(list(dict.fromkeys(own)))
        half = iter(self.asked.by_prompt(self.halves.painted(wanted["robustness"])) if self.halves else ())
        each = iter(torch.stack([made[text][i % n] for i, text in enumerate(own)]).split(n))
        rows = []
        for t, before in zip(tried, self.before, strict=True):
            rows.append(before if t.kind == "specificity" else next(half if t.kind == "robustness" else each))
        return torch.stack(rows)

    def deep(self, *, outright: bool = False) -> NDArray[Any]:
        """How deep the model is changed now, [edited wording, seed]; NaN where nobody can say."""
        shape = sum(t.kind == "efficacy" for t in self.asked.tried), len(self.asked.setup.seeds)
        if self.said is None or self.halves is None:
            return np.full(shape, np.nan)
        before, wanted = self.said
        now = wanted if outright else self.halves.said(self.asked.rows("efficacy"))
        return depth(before, now, wanted).reshape(shape)
