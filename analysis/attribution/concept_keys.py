"""Concepts in cross-attention: keys that the picture's queries meet, and that change nothing.

OVAM (Marcos-Manchon et al., CVPR 2024, arXiv:2403.14291): a second text is encoded, and its keys are scored
by the queries of the run. With the prompt itself for that text the maps are the word maps of the run. Text is
read there as it was encoded, so its keys are the same at all steps: one call of the network tells them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ...models.base import Model, Prompt
from ...models.places.attention import attention_probs
from ...models.run.context import CallContext, When
from ...models.site import Site
from ...probes.intervene import Intervention
from .passenger import Take


@dataclass(frozen=True)
class ConceptKeys:
    """Keys of concepts in one model.

    Args:
        keys: at each attention, of each text, [text, head, token, channel].
        texts: encoded.
        concepts: for each concept which text it stands in, and which tokens are its own.
        share: whether scores are shares of attention among all tokens of a concept's text; else they are
            what the softmax is taken of.
    """

    keys: Mapping[Site, Tensor]
    texts: Sequence[Prompt]
    concepts: Sequence[tuple[int, Sequence[int]]]
    share: bool

    def probes(self, sites: Sequence[Site], take: Take, when: When) -> list[Intervention]:
        """Return what looks at the queries; scores are [row, head, token of a concept, place]."""
        return [Intervention(_beside(s, "q"), partial(self._look, s, take), when) for s in sites]

    def _look(self, site: Site, take: Take, queries: Tensor, context: CallContext) -> None:
        found = []
        for text, tokens in self.concepts:
            keys, mask = self.keys[site][text], self.texts[text].mask
            if self.share:
                allowed = None if mask is None else mask.bool()
                scores = attention_probs(queries, keys[None], allowed)[..., list(tokens)].float()
            else:
                own = keys[:, list(tokens)].float().mean(1, keepdim=True)
                scores = queries.float() @ own.transpose(-1, -2) * queries.shape[-1] ** -0.5
            found.append(scores.transpose(-1, -2))
        take(site, torch.cat(found, 2), context)


def keys_of(model: Model, sites: Sequence[Site], texts: Sequence[Prompt]) -> dict[Site, Tensor]:
    """Return each text's keys at each attention, [text, head, token, channel]."""
    found: dict[Site, Tensor] = {}

    def keep(site: Site, x: Tensor, _: CallContext) -> None:
        found[site] = x.clone()

    watch = [Intervention(_beside(s, "k"), partial(keep, s)) for s in sites]
    somewhen = model.steps(1)[0]
    with torch.no_grad():
        model.denoise(model.noise([0] * len(texts)), somewhen, list(texts), interventions=watch)
    return found


def _beside(site: Site, kind: str) -> Site:
    return Site(f"{str(site).removesuffix('probs')}{kind}")
