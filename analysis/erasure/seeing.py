"""Does a picture show a word? Asked of a judge that no attack has seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from ...models.judges.choosing import Function, TextJudge
from ..judging import check_sees, fits


@runtime_checkable
class _Labelled(Protocol):
    """A judge with attributes, of each of which a picture shows one label."""

    vocabulary: Any

    def probability(self, images: Tensor, attribute: str, label: str) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class Seeing:
    """What a judge says of single words.

    Where one of its attributes has all the words for labels, a word is seen with their probability; else a
    picture shows the one that fits it best, of the words and of some others.

    Args:
        judge: who is asked.
        template: what is asked, with ``{}`` for a word.
        words: that may be seen.
        others: what a picture may show instead.
    """

    judge: TextJudge | Function
    template: str
    words: Sequence[str]
    others: Sequence[str]

    @property
    def attribute(self) -> str | None:
        """The attribute of the judge that has all words for labels, if there is one."""
        if not isinstance(self.judge, _Labelled):
            return None
        known = dict(self.judge.vocabulary)
        return next((name for name, labels in known.items() if {*self.words} <= {*labels}), None)

    @property
    def measure(self) -> str:
        """What the numbers are."""
        return "probability" if self.attribute else "share of pictures that it fits best"

    def __call__(self, images: Float[Tensor, "picture 3 height width"]) -> Float[Tensor, "picture word"]:
        """Return how far each picture shows each word, 0 to 1.

        Raises:
            ValueError: for a judge that says the same of all pictures.
        """
        if self.attribute and isinstance(self.judge, _Labelled):
            with torch.no_grad():
                said = [self.judge.probability(images, self.attribute, word) for word in self.words]
            return torch.stack(said, 1).float().cpu()
        candidates = list(dict.fromkeys([*self.words, *self.others]))
        fit = self._fits(images, candidates)
        if len(images) > 1:
            check_sees(self.judge, fit[None, None], {"all": images[None]})
        best = fit.argmax(1)
        return torch.stack([(best == candidates.index(word)).float() for word in self.words], 1)

    def fit(self, images: Float[Tensor, "picture 3 height width"]) -> Float[Tensor, " picture"]:
        """Return how well each picture fits the template with the first word: a broken one does not."""
        return self._fits(images, self.words[:1])[:, 0]

    def _fits(self, images: Tensor, words: Sequence[str]) -> Tensor:
        return fits(self.judge, images, [self.template.replace("{}", word) for word in words])
