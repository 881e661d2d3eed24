"""What concepts are read as: which tokens, at which layers, scored how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch

from ...models.base import Model, Prompt
from ...models.errors import NotFoundError, UsageError
from ...models.run.context import When
from ...models.site import Site
from ...probes.intervene import Probe
from ...probes.trace import expand
from .concept_keys import ConceptKeys, keys_of
from .passenger import Passengers, Take, double_blocks

Score: TypeAlias = Literal["softmax", "logit", "attention"]
Settings: TypeAlias = Literal["paper", "code"]
_LAST = {"paper": 10, "code": 4}
"""So many of the last double blocks count in published settings."""


@dataclass(frozen=True)
class Reading:
    """Concepts, ready to be read in one model.

    Args:
        carrier: what scores them beside a run.
        sites: where.
        score: what is made of the scores.
        joint: whether they ride in a stream of their own.
        columns: for each concept which columns of the scores are its own.
        about: JSON for provenance.
    """

    carrier: Passengers | ConceptKeys
    sites: Sequence[Site]
    score: Score
    joint: bool
    columns: Mapping[str, list[int]]
    about: Mapping[str, Any]

    def probes(self, take: Take, when: When) -> Sequence[Probe]:
        """Return what hands over the scores of each site."""
        return self.carrier.probes(self.sites, take, when)


def read_concepts(  # noqa: PLR0917  # as concept_maps has them
    model: Model,
    concepts: Sequence[str],
    sites: Sequence[Site | str] | Site | str | None,
    score: Score | None,
    within: str,
    settings: Settings | None,
) -> Reading:
    """Encode concepts and choose where they are read; raises as ``concept_maps``."""
    _check_concepts(concepts)
    known = model.reading_sites()
    double = double_blocks(model)
    if settings is not None:
        _check_settings(model, double, settings, sites)
    how: Score = score or ("softmax" if double else "attention")
    _check_score(how, bool(double), concepts)
    chosen = _chosen(model, sites, double or known)
    if settings is not None:
        chosen = chosen[-_LAST[settings] :]
    own = [within.replace("{}", c) if "{}" in within else within for c in concepts]
    once = list(dict.fromkeys(own))
    with torch.no_grad():
        texts = model.encode(once)
    places = [
        (once.index(t), concept_tokens(texts[once.index(t)], c)) for t, c in zip(own, concepts, strict=True)
    ]
    if settings == "code":
        places = [(text, tokens[:1]) for text, tokens in places]
    pieces = {c: [texts[text].tokens[i] for i in at] for c, (text, at) in zip(concepts, places, strict=True)}
    about = {"score": how, "settings": settings or "", "layers": [str(s) for s in chosen], "tokens": pieces}
    if double:
        carrier = _passengers(model, texts, places, settings)
        columns = {c: [i] for i, c in enumerate(concepts)}
        return Reading(carrier, chosen, how, True, columns, about)
    keys = ConceptKeys(keys_of(model, chosen, texts), texts, places, how == "attention")
    return Reading(keys, chosen, how, False, _columns(concepts, places, how), about)


def concept_tokens(text: Prompt, concept: str) -> list[int]:
    """Return the tokens of a concept; where several encoders' tokens follow one another, the last one's.

    Raises:
        LookupError: if no encoder reads it; the message names near misses.
    """
    first, found = 0, list[int]()
    for words in text.segments:
        if words.reads(concept):
            found = [first + i for i in words.find(concept)]
        first += len(words.tokens)
    return found or text.find(concept)


def _passengers(
    model: Model, texts: Sequence[Prompt], places: Sequence[tuple[int, list[int]]], settings: Settings | None
) -> Passengers:
    ends = torch.tensor([0, *(len(tokens) for _, tokens in places)]).cumsum(0).tolist()
    own = [list(range(a, b)) for a, b in zip(ends[:-1], ends[1:], strict=True)]
    embeds = torch.cat([texts[text].embeds[tokens] for text, tokens in places])
    return Passengers(model, embeds, own, "zero" if settings == "code" else "prompt")


def _columns(
    concepts: Sequence[str], places: Sequence[tuple[int, list[int]]], how: Score
) -> dict[str, list[int]]:
    """Each token has a map of its own where it is cut off before they are averaged, as in word maps."""
    found, n = dict[str, list[int]](), 0
    for concept, (_, tokens) in zip(concepts, places, strict=True):
        own = len(tokens) if how == "attention" else 1
        found[concept] = list(range(n, n + own))
        n += own
    return found


def _chosen(
    model: Model, sites: Sequence[Site | str] | Site | str | None, known: Sequence[Site]
) -> list[Site]:
    """Return which attentions count, in the order in which they run."""
    if sites is None:
        return list(known)
    found = expand(model, sites)
    for site in found:
        if site not in known:
            raise UsageError(f"concepts are not read at {site}; give sites like {str(known[0])!r}")
    if not found:
        raise UsageError(f"no sites to read concepts at; give sites like {str(known[0])!r}")
    return [s for s in known if s in found]


def _check_concepts(concepts: Sequence[str]) -> None:
    if not concepts:
        raise UsageError('concepts is empty; give some: ["cat", "background"]')
    for concept in concepts:
        if not concept.strip():
            raise UsageError(f"a concept is {concept!r}, which the encoder reads as nothing; give a word")
    if twice := [c for c in concepts if list(concepts).count(c) > 1]:
        raise UsageError(f"the concept {twice[0]!r} is there {concepts.count(twice[0])} times; give it once")


def _check_score(score: str, joint: bool, concepts: Sequence[str]) -> None:
    known = ("softmax", "logit") if joint else ("softmax", "logit", "attention")
    if score not in known:
        raise UsageError(f"score is {score!r}; for this model it is {' or '.join(map(repr, known))}")
    if score == "softmax" and len(concepts) == 1:
        raise UsageError(
            f"a softmax over the one concept {concepts[0]!r} is 1 everywhere; add what else is there "
            "(\"background\"), or take score='logit'"
        )


def _check_settings(model: Model, double: Sequence[Site], settings: str, sites: object) -> None:
    if settings not in _LAST:
        raise UsageError(f"settings is {settings!r}; it is 'paper', 'code' or None")
    if sites is not None:
        raise UsageError(f"settings={settings!r} says which sites; leave them out")
    if not double:
        raise NotFoundError(
            f"settings={settings!r} is of ConceptAttention, which reads joint attention; {model.name} has "
            "none. Leave settings out"
        )
    if settings == "code" and model.joint_order[0] == "img":
        raise UsageError(
            "settings='code' is of FLUX.1; for Stable Diffusion 3 the published code reads the picture of "
            "another pass. Take settings='paper', or None"
        )
