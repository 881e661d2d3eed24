"""Encoded text that still knows its words."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import NotFoundError
from ..suggest import near


@dataclass(frozen=True, eq=False)
class Words:
    """A text as one tokenizer cut it up.

    Args:
        text: what was written.
        tokens: the tokenizer's pieces, padding included.
        spans: for each token the characters of ``text`` it stands for; empty spans for special tokens.
    """

    text: str
    tokens: tuple[str, ...]
    spans: tuple[tuple[int, int], ...] = ()

    @property
    def end(self) -> int:
        """Index of the first token after the text (the end-of-text token)."""
        return 1 + max((i for i, (a, b) in enumerate(self.spans) if b > a), default=0)

    @property
    def words(self) -> tuple[str, ...]:
        """The words of the text, in order."""
        return tuple(re.findall(r"\w+(?:[-']\w+)*", self.text))

    def without(self, words: str) -> str:
        """Return the text with the words left out at every occurrence, spaces and commas tidied.

        Raises:
            LookupError: if the text does not contain the words; the message names near misses.

        >>> Words("a red cat, sitting, on a mat", ()).without("sitting")
        'a red cat, on a mat'
        """
        left = self.text
        for a, b in reversed(self._places(words)):
            left = left[:a] + left[b:]
        left = re.sub(r"\s*,(?:\s*,)*", ",", left)  # nothing between two commas: one is enough
        return re.sub(r"\s+", " ", left).strip(" ,")

    def reads(self, words: str) -> bool:
        """Whether some token stands for the words; none may, where the text was cut off before."""
        try:
            return bool(self.find(words))
        except LookupError:
            return False

    def find(self, words: str) -> list[int]:
        """Return the indices of the tokens that spell one word or a run of words, at every occurrence.

        Upper and lower case are the same; ``"cook"`` does not match inside ``"cookie"``.

        Raises:
            LookupError: if the text does not contain the words; the message names its words. Or if no token
                stands for them, because the text was cut off before.

        >>> spans = ((0, 0), (0, 1), (2, 5), (6, 9), (0, 0))
        >>> words = Words("a red cat", ("<s>", "a", "red", "cat", "</s>"), spans)
        >>> words.find("cat"), words.find("red cat"), words.end
        ([3], [2, 3], 4)
        """
        places = self._places(words)
        found = [i for i, (a, b) in enumerate(self.spans) if any(a < d and c < b for c, d in places)]
        if not found:
            raise NotFoundError(
                f"no token stands for {words!r}: the prompt {self.text!r} was cut off after "
                f"{len(self.tokens)} tokens, or the tokenizer does not know the word"
            )
        return found

    def _places(self, words: str) -> list[tuple[int, int]]:
        """Where the words stand in the text, as characters."""
        pattern = rf"(?<!\w){re.escape(words.strip())}(?!\w)"
        places = [m.span() for m in re.finditer(pattern, self.text, re.IGNORECASE)] if words.strip() else []
        if not places:
            raise NotFoundError(f"{words!r} is not in the prompt {self.text!r}; {near(words, self.words)}")
        return places


@dataclass(frozen=True, eq=False, kw_only=True)
class Prompt(Words):
    """One encoded text: the tokens that the denoiser reads, and what each text encoder read.

    Args:
        text: what was written.
        tokens: the pieces behind ``embeds``, padding included.
        spans: for each token the characters of ``text`` it stands for.
        embeds: what the denoiser reads, [token, channel].
        pooled: pooled text embedding, where the family has one, [pooled].
        mask: 1 for tokens that the denoiser may look at, where the family has one, [token].
        read: the words as each text encoder cut them up, by component; for several encoders.
        sizes: of pictures, as the denoiser is told them by name, where the family has such conditions.
    """

    embeds: Float[Tensor, "token channel"]
    pooled: Float[Tensor, " pooled"] | None = None
    mask: Int[Tensor, " token"] | None = None
    read: Mapping[str, Words] = field(default_factory=dict)
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        """A hash of what the denoiser reads: equal for texts and embeddings that are equal to the bit.

        Some read the text itself, and have no embeddings.
        """
        digest = hashlib.sha256(repr((self.text, sorted(self.sizes.items()))).encode())
        for t in (self.embeds, self.pooled, self.mask):
            if t is not None:
                x = t.detach().cpu().contiguous().reshape(-1)
                digest.update(f"{t.dtype}{tuple(t.shape)}".encode() + x.view(torch.uint8).numpy().tobytes())
            digest.update(b"|")
        return digest.hexdigest()

    def of(self, component: str) -> Words:
        """Return the words as one text encoder (``text_encoder_2``) reads them: its own tokens and spans.

        Raises:
            LookupError: if the model has several text encoders and this is none of them.
        """
        if self.read and component not in self.read:
            raise NotFoundError(
                f"no text encoder {component!r} read this prompt; {near(component, self.read)}"
            )
        return self.read.get(component, self)
