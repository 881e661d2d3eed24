"""The probes by name: what each does, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from . import clean_rows, completion, embedding, from_pictures, paraphrase, relearning
from .world import Trial, World


@dataclass(frozen=True)
class Probe:
    """One way to reach what was edited away.

    Args:
        tries: makes its trials.
        count: how many rows of the denoiser that takes, training included.
    """

    tries: Callable[[World], Iterator[Trial]]
    count: Callable[[World], int]


PROBES: dict[str, Probe] = {
    "paraphrase": Probe(paraphrase.paraphrases, paraphrase.count),
    "clean_embeddings": Probe(clean_rows.clean_embeddings, clean_rows.count),
    "completion": Probe(completion.completions, completion.count),
    "noised": Probe(from_pictures.noised, from_pictures.count_noised),
    "invert": Probe(from_pictures.inverted, from_pictures.count_inverted),
    "embedding": Probe(embedding.fitted, embedding.count),
    "relearn": Probe(relearning.relearnt, relearning.count),
}
CHEAP = ("paraphrase", "clean_embeddings", "completion", "embedding")
"""What a first look takes, with ``Budget.short()``."""
