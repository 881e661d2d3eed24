"""What the unedited model painted when it was asked outright, in words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import xarray as xr

from .findings import Finding
from .plain import plain_part


def cannot_paint(asked: xr.Dataset) -> list[str]:
    """Return those of the two words that no picture shows; none where nobody can say."""
    if not asked.attrs["judged"]:
        return []
    seen = asked["shown"].fillna(0).sum("seed")
    return [str(word) for word in seen["word"].values if float(seen.sel(word=word)) == 0]


def tell_refusal(asked: xr.Dataset, pictures: str) -> str:
    """Say what the model cannot paint, where the pictures are, and what it can paint instead."""
    pieces, near = (json.loads(asked.attrs[name]) for name in ("pieces", "near"))
    said = []
    for word in cannot_paint(asked):
        text = f"asked outright for {word!r}, the unedited model does not paint it ({pictures})"
        also = ", and so does its judge" if _unjudged(asked, word) else ""
        text += f": {tell_pieces(pieces[word])}{also}" if word in pieces else ""
        text += f"; it can paint {', '.join(map(repr, near[word]))}" if near[word] else ""
        said.append(text)
    return f"{'. And '.join(said)}. Take another word, or go on all the same: --anyway, anyway=True"


def tell_asked(asked: xr.Dataset) -> list[Finding]:
    """Say of which words the findings mean little: the model cannot paint them, or reads them in pieces."""
    pieces, seeds = json.loads(asked.attrs["pieces"]), asked.sizes["seed"]
    said = [
        f"Asked outright for “{word}”, the unedited model painted it in none of {seeds} pictures."
        for word in cannot_paint(asked)
        if not _unjudged(asked, word)
    ]
    said += [f"{_capital(tell_pieces(cut))}: it may mean nothing to it." for cut in pieces.values()]
    return [Finding(text, weak=True) for text in said]


def tell_pieces(pieces: Mapping[str, Mapping[str, Sequence[str]]]) -> str:
    """Say which single words text encoders know in pieces only.

    >>> tell_pieces({"text_encoder": {"dinosaur": ["di", "no", "saur"]}})
    'the text encoder knows “dinosaur” only in pieces (di-no-saur)'
    """
    return "; ".join(
        f"the {plain_part(encoder)} knows “{word}” only in pieces ({'-'.join(cut)})"
        for encoder, words in pieces.items()
        for word, cut in words.items()
    )


def _unjudged(asked: xr.Dataset, word: str) -> bool:
    """Whether nobody looked: a judge that reads as the model does cannot know a word in pieces either."""
    return bool(asked["shown"].sel(word=word).isnull().all())


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
