"""Which words of a prompt are taken apart, and the texts that leave some of them out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...models.errors import UsageError
from ...models.text.prompt import Words, places

LITTLE = frozenset(
    ["a", "an", "the", "this", "that", "these", "those", "and", "or", "but", "nor", "of", "in", "on", "at",
     "by", "to", "from", "with", "without", "for", "as", "into", "onto", "over", "under", "is", "are", "be",
     "has", "have", "its", "his", "her", "their"]
)  # fmt: skip
"""Words that say how others hang together: articles, prepositions, conjunctions, auxiliaries."""


@dataclass(frozen=True)
class Word:
    """A word or phrase at one place of a prompt.

    Args:
        name: as it is asked for, ``"red"`` or ``"cook:2"``.
        text: without the number.
        first: its first character in the prompt.
        last: the one after its last.
    """

    name: str
    text: str
    first: int
    last: int


def chosen_words(prompt: str, words: Sequence[str] | None, least: int = 2) -> list[Word]:
    """Return the words that are asked for, in the order of the prompt; None is all of them.

    Raises:
        LookupError: for words that are not in the prompt; the message names near misses.
        ValueError: for fewer than ``least`` (one or two), words that stand in several places without saying
            which, and words that share letters.
    """
    read = Words(prompt, ())
    asked = _all(read) if words is None else list(words)
    found = sorted((_found(read, name) for name in asked), key=lambda w: w.first)
    if len(found) < least:
        fix = "name one" if least == 1 else "name at least two words, or use mutual_information for one"
        raise UsageError(f"{asked} of {prompt!r} is no {'word' if least == 1 else 'pair'}; {fix}")
    for a, b in zip(found, found[1:], strict=False):
        if b.first < a.last:
            same = a.name == b.name
            raise UsageError(
                f"{a.name!r} is named twice; name two words"
                if same
                else f"{a.name!r} and {b.name!r} share letters in {prompt!r}; name words apart"
            )
    return found


def content_words(prompt: str) -> list[str]:
    """Return the words of a prompt that are not in ``LITTLE``, as ``chosen_words`` takes them.

    >>> content_words("a cook and the red cook")
    ['cook:1', 'red', 'cook:2']
    """
    return [name for name in _all(Words(prompt, ())) if name.split(":")[0].lower() not in LITTLE]


def _all(read: Words) -> list[str]:
    """Every word, with its number where it stands in several places."""
    names, last = [], 0
    for word in read.words:
        first = read.text.index(word, last)
        last = first + len(word)
        everywhere = [a for a, _ in places(read.text, word)]
        names.append(word if len(everywhere) == 1 else f"{word}:{everywhere.index(first) + 1}")
    return names


def _found(read: Words, name: str) -> Word:
    spans = places(read.text, name)
    if not spans:
        read.without(name)  # raises, and says what may have been meant
    if len(spans) > 1:
        which = " or ".join(repr(f"{name}:{k}") for k in range(1, len(spans) + 1))
        raise UsageError(f"{name!r} stands in {len(spans)} places of {read.text!r}; name one: {which}")
    first, last = spans[0]
    return Word(name, read.text[first:last], first, last)


def without(prompt: str, words: Sequence[Word]) -> str:
    """Return a prompt with some of its words left out in their places.

    >>> without("a red cook and a cook", [Word("red", "red", 2, 5), Word("cook:2", "cook", 17, 21)])
    'a cook and a'
    """
    left = prompt
    for word in sorted(words, key=lambda w: -w.first):  # from the end: what stands before keeps its place
        nth = [first for first, _ in places(left, word.text)].index(word.first) + 1
        left = Words(left, ()).without(f"{word.text}:{nth}")
    return left
