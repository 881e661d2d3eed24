"""Take a subject out of a prompt: noise on its token embeddings, or other words in its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from ...models.arguments import check_fields
from ...models.base import Model
from ...models.errors import UsageError
from ...models.run.context import CallContext
from ...models.run.noise import generators
from ...models.site import Site
from ...models.text.prompt import Prompt, Words, places
from ...probes.intervene import Change, Intervention, intervening
from ...probes.text_states import TEXT_BATCH, site_states

EMBEDDINGS = "embed/tokens"
"""Where noise enters each text encoder: the token embeddings, before positions are added."""


@dataclass(frozen=True)
class Noise:
    """Gaussian noise added to the embeddings of the subject's tokens (Meng et al. 2022, ROME, section 2).

    Draw i is the same for each prompt, as in ROME: it depends on ``seed`` and i alone.

    Args:
        sd: in units of the standard deviation of all subjects' token embeddings; 3 is ROME's "s3".
        draws: number of noise samples; ROME takes 10.
        seed: of the noise.

    Raises:
        ValueError: for a negative sd, or no draws.
    """

    sd: float = 3.0
    draws: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields(self)
        if not 0 <= self.sd < float("inf"):
            raise UsageError(f"sd is {self.sd}; it is a number from 0 up, 3 by default")
        if self.draws < 1:
            raise UsageError(f"draws is {self.draws}; give at least 1")


@dataclass(frozen=True)
class Swap:
    """Other words in the subject's place: ``Swap("cook")``. There is one draw.

    Args:
        words: what is written instead of the subject.
    """

    words: str
    draws: int = field(default=1, init=False)

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.words.strip():
            raise UsageError("Swap needs words to put in the subject's place, like Swap('cook')")


Corruption = Noise | Swap


@dataclass(frozen=True, eq=False)
class CorruptedText:
    """A prompt without its subject, ready to be encoded.

    Args:
        text: what the text encoders are given.
        added: for each text encoder the subject's positions there, and what is added to their embeddings,
            [token, channel]; empty adds nothing.
    """

    text: str
    added: Mapping[str, tuple[tuple[int, ...], Tensor]] = field(default_factory=dict)

    def interventions(self) -> tuple[Intervention, ...]:
        """What corrupts it inside the text encoders."""
        return tuple(
            Intervention(Site(f"{encoder}/{EMBEDDINGS}"), _adder(tokens, added))
            for encoder, (tokens, added) in self.added.items()
        )


def _adder(tokens: tuple[int, ...], added: Float[Tensor, "token channel"]) -> Change:
    def add(x: Tensor, _: CallContext) -> Tensor:
        y = x.clone()
        y[:, list(tokens)] += added.to(x)
        return y

    return add


def corrupt(
    model: Model, prompts: Sequence[Prompt], subjects: Sequence[str], corruption: Corruption
) -> list[list[CorruptedText]]:
    """Return what takes each prompt's subject out, [prompt][draw].

    Args:
        model: an opened model with a text encoder.
        prompts: clean, encoded.
        subjects: the words to take out, one (or a run of words) for each prompt, at every occurrence
            or at that of ``"cook:2"``.
        corruption: how.

    Raises:
        ValueError: if the model reads no text.
        LookupError: if a prompt does not contain its subject, or no tokenizer knows it; the message names its
            words.
    """
    check_reads_text(model)
    for prompt, subject in zip(prompts, subjects, strict=True):
        prompt.find(subject)
    if isinstance(corruption, Swap):
        texts = [_swap(p.text, s, corruption.words) for p, s in zip(prompts, subjects, strict=True)]
        return [[CorruptedText(text)] for text in texts]
    tokens = {
        e: [_positions(p.of(e), s) for p, s in zip(prompts, subjects, strict=True)]
        for e in model.text_encoders
    }
    noise = {e: _noise(model, prompts, t, corruption, e) for e, t in tokens.items() if any(t)}
    return [
        [CorruptedText(p.text, {e: noise[e][i][draw] for e in noise}) for draw in range(corruption.draws)]
        for i, p in enumerate(prompts)
    ]


def _noise(
    model: Model,
    prompts: Sequence[Prompt],
    tokens: Sequence[tuple[int, ...]],
    corruption: Noise,
    encoder: str,
) -> list[list[tuple[tuple[int, ...], Tensor]]]:
    """For each prompt and draw: the subject's positions in one text encoder, and the noise added there."""
    site = Site(f"{encoder}/{EMBEDDINGS}")
    embeddings = site_states(model, [p.text for p in prompts], [site])[site]
    spread = torch.cat([e[list(t)] for e, t in zip(embeddings, tokens, strict=True)]).std()
    unit = 1.0 if spread.is_meta else spread.item()  # full-size models without weights are counted alone
    size, width = max(map(len, tokens)), embeddings.shape[-1]
    draws = _gaussian(corruption, size, width, model.text_encoders.index(encoder))
    return [[(t, corruption.sd * unit * z[: len(t)]) for z in draws] for t in tokens]


def _positions(words: Words, subject: str) -> tuple[int, ...]:
    """Where one encoder reads the subject: nowhere, if it cut the text off before or does not know it."""
    return tuple(words.find(subject)) if words.reads(subject) else ()


def check_swapped(corruption: Corruption, corrupted: Sequence[Prompt]) -> None:
    """Raise LookupError if words were swapped in that the model cannot read."""
    if isinstance(corruption, Swap):
        for prompt in corrupted:
            prompt.find(corruption.words)


def encode_rows(model: Model, rows: Sequence[tuple[str, Sequence[Intervention]]]) -> list[Prompt]:
    """Encode texts in few batches; row i alone feels its own interventions."""
    prompts: list[Prompt] = []
    for first in range(0, len(rows), TEXT_BATCH):
        chunk = rows[first : first + TEXT_BATCH]
        here = [i.on(row) for row, (_, interventions) in enumerate(chunk) for i in interventions]
        with torch.no_grad(), intervening(model, *here):
            prompts += model.encode([text for text, _ in chunk])
    return prompts


def check_reads_text(model: Model) -> None:
    """Raise ValueError if there is no text to corrupt."""
    if not model.text_encoders:
        raise UsageError(
            f"{model.name} has no text encoder, so there is no subject to take out of a text; "
            "causal mediation needs a model with a text encoder, like load('emoji')"
        )


def _gaussian(noise: Noise, tokens: int, channels: int, encoder: int = 0) -> list[Tensor]:
    """Token by token, so that more draws or longer subjects leave the first ones as they are."""
    seeds = [1_000_003 * (noise.seed + 7919 * encoder) + i for i in range(noise.draws)]
    sources = generators(seeds)
    return [torch.stack([torch.randn(channels, generator=g) for _ in range(tokens)]) for g in sources]


def _swap(text: str, subject: str, words: str) -> str:
    for first, last in reversed(places(text, subject)):
        text = text[:first] + words + text[last:]
    return text
