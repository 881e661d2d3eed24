"""Which tokens of which texts an optimised value belongs to, and how far the texts are from their targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..models.base import Model
from ..models.errors import NotFoundError, UsageError
from ..models.places.hooks import hooked
from ..models.site import Site
from ..models.text.prompt import Words
from ..models.text.tail import Tail, tail
from ..probes.text_states import TEXT_BATCH
from .requests import PromptPair, Tokens, aligned, slots


@dataclass(frozen=True, eq=False)
class Lookup:
    """Some requests in all their wordings, in the upper layers of one text encoder.

    Args:
        source: the texts that are edited.
        target: the texts that they shall be read as, row by row.
        request: the request of each text.
        at: text and token of each place where something is added, [place] each.
        value: which value is added there, [place].
        asked: the request that each value belongs to, [value].
        rows: text, token of the source and token of the target of each state that is compared, [row] each.
    """

    source: Tail
    target: Tail
    request: Int[Tensor, " text"]
    at: tuple[Tensor, Tensor]
    value: Int[Tensor, " place"]
    asked: Int[Tensor, " value"]
    rows: tuple[Tensor, Tensor, Tensor]

    @property
    def requests(self) -> int:
        """How many there are."""
        return int(self.request.max()) + 1

    @cached_property
    def _ends(self) -> tuple[Tensor, Tensor]:
        """The states that the source texts have, and those of their targets, before anything is changed."""
        with torch.no_grad():
            return self.source.states().float(), self.target.states().float()

    def mean(self, x: Float[Tensor, "place channel"]) -> Float[Tensor, "value channel"]:
        """Return the mean over the places of each value."""
        total = x.new_zeros(len(self.asked), x.shape[-1]).index_add_(0, self.value, x)
        return total / torch.bincount(self.value, minlength=len(self.asked))[:, None]

    def clean(self, model: Model, site: Site) -> Float[Tensor, "place channel"]:
        """Return what passes through a site at each place, with what acts on the model now; in float64."""
        seen: list[Tensor] = []
        with torch.no_grad(), hooked(model, [(site, seen.append)]):
            self.source.states()
        return seen[0].cpu()[self.at].double()

    def contrasts(self, model: Model, texts: Sequence[str]) -> Float[Tensor, "text candidate pooled"]:
        """Return E of the target, the source and some other texts, for each text."""
        was, want = self._ends
        found = [self.target.pooled(want), self.source.pooled(was)]
        if texts:
            encoder, first = self.source.encoder, self.source.first
            others = tail(model, encoder, first, texts)
            with torch.no_grad():
                each = others.pooled(others.states().float())
            found += [e.expand_as(found[0]) for e in each]
        return torch.stack(found, 1).detach()

    def distance(self, candidates: Tensor | None) -> Float[Tensor, " request"]:
        """Return the loss of each request, a mean over its wordings; differentiable.

        Args:
            candidates: of ``contrasts``, for the contrastive objective; None is the distance of the states.
        """
        states = self.source.states().float()
        if candidates is None:
            each = self._squares(states) / self._squares(self._ends[0]).clamp_min(1e-30)
        else:
            apart = (self.source.pooled(states)[:, None] - candidates).square().sum(-1)
            each = -(-apart.clamp_min(1e-12).sqrt()).log_softmax(1)[:, 0]
        each = each.cpu()
        total = each.new_zeros(self.requests).index_add(0, self.request, each)
        return total / torch.bincount(self.request)

    def _squares(self, states: Tensor) -> Float[Tensor, " text"]:
        text, ours, theirs = self.rows
        apart = (states[text, ours] - self._ends[1][text, theirs]).square().sum(-1)
        return apart.new_zeros(len(states)).index_add(0, text.to(apart.device), apart)


def lookups(
    model: Model, encoder: str, first: int, pairs: Sequence[PromptPair], tokens: Tokens
) -> list[Lookup]:
    """Return requests in batches of whole requests, as the layers of an encoder from one on read them.

    Raises:
        LookupError: for a word that the tokenizer loses, or does not know.
        ValueError: for texts that are too long, a layer that the denoiser does not read, and requests that
            the tokenizer reads alike.
    """
    by_word: dict[str, list[PromptPair]] = {}
    for pair in pairs:
        by_word.setdefault(pair.said, []).append(pair)
    each = max(1, TEXT_BATCH // max(map(len, by_word.values())))
    words = list(by_word)
    groups = [words[i : i + each] for i in range(0, len(words), each)]
    found = [_lookup(model, encoder, first, {w: by_word[w] for w in g}, tokens) for g in groups]
    read = (
        zip((p for w in g for p in by_word[w]), f.source.words, strict=True)
        for g, f in zip(groups, found, strict=True)
    )
    _check_apart(encoder, [(pair.said, words) for some in read for pair, words in some])
    return found


def _lookup(
    model: Model, encoder: str, first: int, asked: Mapping[str, Sequence[PromptPair]], tokens: Tokens
) -> Lookup:
    pairs = [pair for some in asked.values() for pair in some]
    request = [i for i, some in enumerate(asked.values()) for _ in some]
    source, target = (
        tail(model, encoder, first, [getattr(p, s) for p in pairs]) for s in ("source", "target")
    )
    places: list[tuple[int, int, tuple[int, int]]] = []
    rows: list[tuple[int, int, int]] = []
    for i, (pair, a, b) in enumerate(zip(pairs, source.words, target.words, strict=True)):
        try:
            ours, theirs = slots(a, b, pair, "subject+end")
        except NotFoundError as error:
            raise NotFoundError(f"{encoder}: {error}") from None
        rows += [(i, x, y) for x, y in zip(ours, aligned(ours, theirs), strict=True)]
        for kind, some in enumerate(_groups(a, ours[0], tokens)):
            places += [(i, token, (request[i], kind)) for token in some]
    values = sorted({value for *_, value in places})
    text, token, value = zip(*places, strict=True)
    return Lookup(
        source,
        target,
        torch.tensor(request),
        (torch.tensor(text), torch.tensor(token)),
        torch.tensor([values.index(v) for v in value]),
        torch.tensor([r for r, _ in values]),
        tuple(torch.tensor(column) for column in zip(*rows, strict=True)),  # type: ignore[arg-type]
    )


def _groups(words: Words, subject: int, tokens: Tokens) -> list[list[int]]:
    """The word's last token; the end token; the padding."""
    end, n = max(words.end, subject + 1), len(words.tokens)
    if (
        tokens == "subject" or words.tokens[min(end, n - 1)] == "<pad>"
    ):  # Gemma marks no end, and masks padding
        return [[subject]]
    return [[subject], list(range(end, min(end + 1, n))), list(range(end + 1, n))]


def _check_apart(encoder: str, read: Sequence[tuple[str, Words]]) -> None:
    """Raise UsageError for two requests that an encoder reads alike: no layer can give two answers."""
    seen: dict[tuple[str, ...], str] = {}
    for said, words in read:
        other = seen.setdefault(words.tokens, said)
        if other != said:
            raise UsageError(
                f"{encoder} reads the requests {other!r} and {said!r} alike, so they cannot be told apart; "
                "give one of them"
            )
