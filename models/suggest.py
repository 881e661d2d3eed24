"""Near misses: what somebody may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def near(word: str, known: Iterable[str], n: int = 3) -> str:
    """Say which known names lie close to a wrong one, for an error message."""
    names = list(known)
    close = difflib.get_close_matches(word, names, n, cutoff=0.4)
    if close:
        return f"did you mean {' or '.join(repr(c) for c in close)}?"
    return f"known: {', '.join(names[:12])}{', ...' if len(names) > 12 else ''}"
