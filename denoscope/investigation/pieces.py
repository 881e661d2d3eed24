"""Words that a text encoder knows in pieces only: what it makes of them may mean little."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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


def tell_pieces(pieces: Mapping[str, Mapping[str, Sequence[str]]]) -> str:
    """Say which single words text encoders know in pieces only.

    >>> tell_pieces({"text_encoder": {"dinosaur": ["di", "no", "saur"]}})
    "the text_encoder knows 'dinosaur' only in pieces (di-no-saur)"
    """
    return "; ".join(
        f"the {encoder} knows {word!r} only in pieces ({'-'.join(cut)})"
        for encoder, words in pieces.items()
        for word, cut in words.items()
    )
