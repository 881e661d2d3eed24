"""Take a subject out of a prompt: noise on its token embeddings, or other words in its place."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from ..models.base import Model
from ..models.prompt import Prompt
from ..models.site import Site
from ..models.time import Step
from ..probes.intervene import Intervention, intervening

EMBEDDINGS = Site("text_encoder/embed/tokens")
"""Where noise enters: the token embeddings, before positions are added."""
TEXT_BATCH = 64


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
        if not 0 <= self.sd < float("inf"):
            raise ValueError(f"sd is {self.sd}; it is a number from 0 up, 3 by default")
        if self.draws < 1:
            raise ValueError(f"draws is {self.draws}; give at least 1")


@dataclass(frozen=True)
class Swap:
    """Other words in the subject's place: ``Swap("cook")``. There is one draw.

    Args:
        words: what is written instead of the subject.
    """

    words: str
    draws: int = field(default=1, init=False)

    def __post_init__(self) -> None:
        if not self.words.strip():
            raise ValueError("Swap needs words to put in the subject's place, like Swap('cook')")


Corruption = Noise | Swap


@dataclass(frozen=True, eq=False)
class Corrupted:
    """A prompt without its subject, ready to be encoded.

    Args:
        text: what the text encoder is given.
        tokens: positions of the subject in the clean prompt.
        added: what is added to the token embeddings at ``tokens``, [token, channel]; None adds nothing.
    """

    text: str
    tokens: tuple[int, ...]
    added: Float[Tensor, "token channel"] | None = None

    def interventions(self) -> tuple[Intervention, ...]:
        """What corrupts it inside the text encoder."""
        added, tokens = self.added, list(self.tokens)
        if added is None:
            return ()

        def add(x: Tensor, _: Step | None) -> Tensor:
            y = x.clone()
            y[:, tokens] += added.to(x)
            return y

        return (Intervention(EMBEDDINGS, add),)


def corrupt(
    model: Model, prompts: Sequence[Prompt], subjects: Sequence[str], corruption: Corruption
) -> list[list[Corrupted]]:
    """Return what takes each prompt's subject out, [prompt][draw].

    Args:
        model: an opened model with a text encoder.
        prompts: clean, encoded.
        subjects: the words to take out, one (or a run of words) for each prompt, at every occurrence.
        corruption: how.

    Raises:
        ValueError: if the model reads no text.
        LookupError: if a prompt does not contain its subject; the message names its words.
    """
    check_reads_text(model)
    tokens = [tuple(p.find(s)) for p, s in zip(prompts, subjects, strict=True)]
    if isinstance(corruption, Swap):
        texts = [_swap(p.text, s, corruption.words) for p, s in zip(prompts, subjects, strict=True)]
        return [[Corrupted(text, t)] for text, t in zip(texts, tokens, strict=True)]
    embeddings = states(model, [p.text for p in prompts], [EMBEDDINGS])[EMBEDDINGS]
    unit = torch.cat([e[list(t)] for e, t in zip(embeddings, tokens, strict=True)]).std().item()
    size, width = max(map(len, tokens)), embeddings.shape[-1]
    draws = [corruption.sd * unit * z for z in _gaussian(corruption, size, width)]
    return [[Corrupted(p.text, t, z[: len(t)]) for z in draws] for p, t in zip(prompts, tokens, strict=True)]


def encode_rows(model: Model, rows: Sequence[tuple[str, Sequence[Intervention]]]) -> list[Prompt]:
    """Encode texts in few batches; row i alone feels its own interventions."""
    prompts: list[Prompt] = []
    for first in range(0, len(rows), TEXT_BATCH):
        chunk = rows[first : first + TEXT_BATCH]
        here = [i.on(row) for row, (_, interventions) in enumerate(chunk) for i in interventions]
        with torch.no_grad(), intervening(model, *here):
            prompts += model.encode([text for text, _ in chunk])
    return prompts


def states(model: Model, texts: Sequence[str], sites: Sequence[Site]) -> dict[Site, Tensor]:
    """Return what passes through text-encoder sites, [text, token, channel] each."""
    found: dict[Site, list[Tensor]] = {site: [] for site in sites}

    def keep(site: Site) -> Intervention:
        return Intervention(site, lambda x, _: found[site].append(x.detach().clone()))

    for first in range(0, len(texts), TEXT_BATCH):
        with torch.no_grad(), intervening(model, *map(keep, sites)):
            model.encode(texts[first : first + TEXT_BATCH])
    return {site: torch.cat(x) for site, x in found.items()}


def check_reads_text(model: Model) -> None:
    """Raise ValueError if there is no text to corrupt."""
    if not model.conditional:
        raise ValueError(
            f"{model.name} reads no prompt, so it has no subject to take out; "
            "causal mediation needs a model with a text encoder, like load('emoji')"
        )


def _gaussian(noise: Noise, tokens: int, channels: int) -> list[Tensor]:
    """Token by token, so that more draws or longer subjects leave the first ones as they are."""
    generators = [torch.Generator().manual_seed(1_000_003 * noise.seed + i) for i in range(noise.draws)]
    return [torch.stack([torch.randn(channels, generator=g) for _ in range(tokens)]) for g in generators]


def _swap(text: str, subject: str, words: str) -> str:
    return re.sub(rf"(?<!\w){re.escape(subject.strip())}(?!\w)", lambda _: words, text, flags=re.IGNORECASE)
