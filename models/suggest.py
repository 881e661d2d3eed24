"""Near misses: what somebody may have meant."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable


def near(word: str, known: Iterable[str], n: int = 3) -> str:
    """Say which known names lie close to a wrong one, for an error message."""
    names = list(known)
    close = difflib.get_close_matches(word, names, n, cutoff=0.4)
    if close:
        return f"did you mean {' or '.join(repr(c) for c in close)}?"
    return f"known: {', '.join(names[:12])}{', ...' if len(names) > 12 else ''}"


def plainly(words: str) -> str:
    """Return how words might be written that a tokenizer does not know: without accents, or otherwise."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", words) if c.isascii())
    lost = len(plain.strip()) < len(words.strip())
    return "write it in words that it knows" if lost else f"did you mean {plain!r}?"
