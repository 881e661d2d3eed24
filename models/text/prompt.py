"""Encoded text that still knows its words."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..arguments import check_fields, checked
from ..errors import NotFoundError, UsageError
from ..places.unchanged import digest_of
from ..suggest import near, plainly

_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
    "\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9d\U00020000-\U0003ffff"
)
"""Letters of scripts that put no spaces between words."""
_LETTER = rf"[^\W{_UNSPACED}]"
"""A letter of any other script, or a digit."""


def spelling(words: str) -> re.Pattern[str]:
    """Return a pattern that finds one word or a run of words in a text, whatever the case.

    A word ends where a letter meets none. Scripts without spaces show no such borders: their words are found
    wherever they stand.

    >>> [spelling("cat").findall(t) for t in ("a Cat", "a cats", "一只cat在跑")]
    [['Cat'], [], ['cat']]
    >>> spelling("猫").findall("一只猫在跑")
    ['猫']
    """
    words = words.strip()
    first, last = (re.match(f"[{_UNSPACED}]", end) for end in (words[:1], words[-1:]))
    before, after = "" if first else rf"(?<!{_LETTER})", "" if last else rf"(?!{_LETTER})"
    return re.compile(before + re.escape(words) + after, re.IGNORECASE)


def occurrence(words: str) -> tuple[str, int | None]:
    """Split a word from which of its occurrences is meant, counted from 1; None is all of them.

    >>> occurrence("cook:2"), occurrence("red cat")
    (('cook', 2), ('red cat', None))
    """
    found = re.fullmatch(r"(.*\S):([1-9]\d*)", words.strip(), re.DOTALL)
    return (found[1], int(found[2])) if found else (words, None)


def places(text: str, words: str) -> list[tuple[int, int]]:
    """Where words stand in a text, as characters: at every occurrence, or the one named as in ``"cook:2"``.

    >>> places("a cook and a cook", "cook"), places("a cook and a cook", "cook:2")
    ([(2, 6), (13, 17)], [(13, 17)])
    """
    found = [m.span() for m in spelling(words).finditer(text)] if words.strip() else []
    word, which = occurrence(words)
    if found or which is None:
        return found
    return places(text, word)[which - 1 : which]


@dataclass(frozen=True, eq=False)
class Words:
    """A text as one tokenizer cut it up.

    Args:
        text: what was written.
        tokens: the tokenizer's pieces, padding included.
        spans: for each token the characters of ``text`` it stands for; empty spans for special tokens.
        unknown: positions of the tokens whose characters the tokenizer does not know (``<unk>``): it reads
            them alike, whatever they are, so they stand for no word.
    """

    text: str
    tokens: tuple[str, ...]
    spans: tuple[tuple[int, int], ...] = ()
    unknown: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def end(self) -> int:
        """Index of the first token after the text (the end-of-text token)."""
        return 1 + max((i for i, (a, b) in enumerate(self.spans) if b > a), default=0)

    @property
    def words(self) -> tuple[str, ...]:
        """The words of the text, in order."""
        return tuple(re.findall(r"\w+(?:[-']\w+)*", self.text))

    @checked
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

    @checked
    def in_pieces(self, words: str) -> dict[str, tuple[str, ...]]:
        """Return those single words that the tokenizer cuts up, with their pieces: it may not know them.

        Args:
            words: one word or a run of words of the text.

        Raises:
            LookupError: as ``find``.

        >>> spans = ((0, 0), (0, 1), (2, 4), (4, 7), (8, 11))
        >>> Words("a zebra cat", ("<s>", "a", "ze", "bra", "cat"), spans).in_pieces("zebra cat")
        {'zebra': ('ze', 'bra')}
        """
        found = {}
        for first, last in self._places(words):
            for word in re.finditer(r"\w+", self.text[first:last]):
                tokens = self.at(first + word.start(), first + word.end())
                if len(tokens) > 1:
                    found[word[0]] = tuple(self.text[slice(*self.spans[i])] for i in tokens)
        return found

    @checked
    def reads(self, words: str) -> bool:
        """Whether some token stands for the words; none may, where the text was cut off before."""
        try:
            return bool(self.find(words))
        except LookupError:
            return False

    @checked
    def find(self, words: str) -> list[int]:
        """Return the indices of the tokens that spell one word or a run of words, at every occurrence.

        Upper and lower case are the same; ``"cook"`` does not match inside ``"cookie"``; ``"cook:2"`` is the
        second cook alone.

        Raises:
            LookupError: if the text does not contain the words; the message names its words. Or if no token
                stands for them: the text was cut off before, or the tokenizer does not know them.

        >>> spans = ((0, 0), (0, 1), (2, 5), (6, 9), (0, 0))
        >>> words = Words("a red cat", ("<s>", "a", "red", "cat", "</s>"), spans)
        >>> words.find("cat"), words.find("red cat"), words.end
        ([3], [2, 3], 4)
        """
        return self._standing_for(self._places(words), words)

    @checked
    def at(self, first: int, last: int) -> list[int]:
        """Return the indices of the tokens that stand for some characters of the text, parts of words too.

        Args:
            first: the first character.
            last: the one after the last.

        Raises:
            ValueError: for characters that the text does not have.
            LookupError: if no token stands for them: the text was cut off before, or the tokenizer does not
                know them.

        >>> Words("two dogs", ("two", "dogs"), ((0, 3), (4, 8))).at(4, 7)
        [1]
        """
        if not 0 <= first < last <= len(self.text):
            raise UsageError(
                f"characters {first} to {last} are not in {self.text!r}, which has 0 to {len(self.text)}"
            )
        return self._standing_for([(first, last)], self.text[first:last])

    def _standing_for(self, places: Sequence[tuple[int, int]], words: str) -> list[int]:
        """The tokens that stand for some places of the text, every character of which is known."""
        over = [i for i, (a, b) in enumerate(self.spans) if any(a < d and c < b for c, d in places)]
        found = [i for i in over if i not in self.unknown]
        known, wanted = self._characters(found), {k for c, d in places for k in range(c, d)}
        lost = dict.fromkeys(self.text[k] for k in sorted((self._characters(over) - known) & wanted))
        if lost:
            raise NotFoundError(
                f"the tokenizer does not know {''.join(lost)!r}: it reads {words!r} in "
                f"the prompt {self.text!r} as it reads every unknown word; {plainly(words)}"
            )
        if not found:
            raise NotFoundError(
                f"no token stands for {words!r}: the prompt {self.text!r} was cut off after "
                f"{len(self.tokens)} tokens, or the tokenizer leaves these characters out"
            )
        return found

    def _characters(self, tokens: Sequence[int]) -> set[int]:
        return {k for i in tokens for k in range(*self.spans[i])}

    def _places(self, words: str) -> list[tuple[int, int]]:
        """Where the words stand in the text, as characters."""
        found = places(self.text, words)
        if found:
            return found
        word, _ = occurrence(words)
        times = len(places(self.text, word))
        if times:
            raise NotFoundError(
                f"{words!r} is not in the prompt {self.text!r}, which holds {word!r} {times} times"
            )
        raise NotFoundError(f"{words!r} is not in the prompt {self.text!r}; {_near(word, self.words)}")


def _near(word: str, words: Sequence[str]) -> str:
    """What may have been meant, and in any case all words that there are."""
    each = dict.fromkeys(words)
    said, known = near(word, each), f"its words are {', '.join(each)}"
    return f"{said} {known[0].upper()}{known[1:]}" if said.startswith("did you mean") else known


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
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
        clip_skip: how many of the text encoder's last layers were left out; None is the family's choice.
        sizes: of pictures, as the denoiser is told them by name, where the family has such conditions.
    """

    embeds: Float[Tensor, "token channel"]
    pooled: Float[Tensor, " pooled"] | None = None
    mask: Int[Tensor, " token"] | None = None
    read: Mapping[str, Words] = field(default_factory=dict)
    clip_skip: int | None = None
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def __repr__(self) -> str:
        shapes = {"embeds": self.embeds, "pooled": self.pooled, "mask": self.mask}
        told = ", ".join(f"{name} {list(x.shape)}" for name, x in shapes.items() if x is not None)
        return f"Prompt({self.text!r}: {len(self.tokens)} tokens, {told})"

    @property
    def segments(self) -> tuple[Words, ...]:
        """The tokenizers' readings whose tokens stand one after another here; mostly one, the prompt itself.

        Stable Diffusion 3 puts T5's tokens behind CLIP's: each word of the text stands in both.
        """
        parts, n = [], 0
        for words in self.read.values():
            if words.tokens and self.tokens[n : n + len(words.tokens)] == words.tokens:
                parts.append(words)
                n += len(words.tokens)
        return tuple(parts) if n == len(self.tokens) and len(parts) > 1 else (self,)

    @property
    def digest(self) -> str:
        """A hash of what is read now, of the text too: equal where both are, embeddings to the bit."""
        read = [t for t in (self.embeds, self.pooled, self.mask) if t is not None]
        if self.embeds.is_meta:
            return f"without values {id(self)}"  # nobody knows what else it is equal to
        return digest_of(self, read, self._taken)

    def _taken(self) -> str:
        sizes = sorted((name, tuple(size)) for name, size in self.sizes.items())
        digest = hashlib.sha256(repr((self.text, sizes)).encode())
        for t in (self.embeds, self.pooled, self.mask):
            if t is not None:
                x = t.detach().cpu().contiguous().reshape(-1)
                digest.update(f"{t.dtype}{tuple(t.shape)}".encode() + x.view(torch.uint8).numpy().tobytes())
            digest.update(b"|")
        return digest.hexdigest()

    @checked
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
