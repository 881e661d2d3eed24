"""Words that a text encoder knows in pieces only: what it makes of them may mean little."""

from __future__ import annotations

import torch

from ..models.base import Model


def in_pieces(model: Model, text: str, word: str) -> dict[str, dict[str, tuple[str, ...]]]:
    """Return the single words of a word that a text encoder knows in pieces only, by encoder.

    Args:
        model: an opened model.
        text: holds the word.
        word: one word or a run of words.
    """
    with torch.no_grad():
        [prompt] = model.encode([text])
    read = {encoder: prompt.of(encoder) for encoder in model.text_encoders}
    cut = {e: words.in_pieces(word) for e, words in read.items() if words.reads(word)}
    return {e: found for e, found in cut.items() if found}
