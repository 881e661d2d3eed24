"""Encoded text that still knows its words."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from .site import near


@dataclass(frozen=True, eq=False)
class Prompt:
    """One encoded text.

    Args:
        text: what was written.
        tokens: the tokenizer's pieces, padding included.
        embeds: what the denoiser reads, [token, channel].
        spans: for each token the characters of ``text`` it stands for; empty spans for special tokens.
        pooled: pooled text embedding, where the family has one, [channel].
    """

    text: str
    tokens: tuple[str, ...]
    embeds: Float[Tensor, "token channel"]
    spans: tuple[tuple[int, int], ...] = ()
    pooled: Float[Tensor, " channel"] | None = None

    @property
    def end(self) -> int:
        """Index of the first token after the text (the end-of-text token)."""
        return 1 + max((i for i, (a, b) in enumerate(self.spans) if b > a), default=0)

    @cached_property
    def digest(self) -> str:
        """A hash of what the denoiser reads: equal for embeddings that are equal to the bit."""
        parts = [t for t in (self.embeds, self.pooled) if t is not None]
        data = b"".join(t.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes() for t in parts)
        return hashlib.sha256(data).hexdigest()

    @property
    def words(self) -> tuple[str, ...]:
        """The words of the text, in order."""
        return tuple(re.findall(r"\w+(?:[-']\w+)*", self.text))

    def find(self, words: str) -> list[int]:
        """Return the indices of the tokens that spell one word or a run of words, at every occurrence.

        Upper and lower case are the same; ``"cook"`` does not match inside ``"cookie"``.

        Raises:
            LookupError: if the text does not contain the words; the message names its words.

        >>> import torch
        >>> p = Prompt("a red cat", ("<s>", "a", "red", "cat", "</s>"), torch.zeros(5, 2),
        ...            ((0, 0), (0, 1), (2, 5), (6, 9), (0, 0)))
        >>> p.find("cat"), p.find("red cat"), p.end
        ([3], [2, 3], 4)
        """
        pattern = rf"(?<!\w){re.escape(words.strip())}(?!\w)"
        places = [m.span() for m in re.finditer(pattern, self.text, re.IGNORECASE)] if words.strip() else []
        if not places:
            raise LookupError(f"{words!r} is not in the prompt {self.text!r}; {near(words, self.words)}")
        return [i for i, (a, b) in enumerate(self.spans) if any(a < d and c < b for c, d in places)]
