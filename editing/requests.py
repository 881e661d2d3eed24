"""What an edit is asked for, and the rows of keys and targets that come of it: shared by all closed forms.

A request says which word shall be read as which. Templates put both into whole texts; in each text the
slots are the tokens that give rows to the solve; the states there (``probes.text_states``, in the input
space of the edited layers) are the keys in the source text, and what targets are made of in the target
text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..models.arguments import checked
from ..models.errors import UsageError
from ..models.text.prompt import Words
from ..probes.text_states import TokenStates

TEMPLATES = ("{}", "a photo of {}", "an image of {}", "a picture of {}")
"""Wordings of Diff-QuickFix (Basu et al. 2024) and TIME (Orgad et al. 2023)."""

Tokens = Literal["subject", "subject+end"]
Pick = Callable[[Words, Words, "PromptPair"], tuple[Sequence[int], Sequence[int]]]
"""Which tokens of a source text give keys, and which of the target text each of them is to be read as."""


@dataclass(frozen=True)
class PromptPair:
    """One wording of one request.

    Args:
        source: the text that is edited.
        target: the text that it shall be read as.
        said: the word of ``source`` that is edited.
        meant: the word of ``target`` that it shall mean; empty to erase it.
        at: the character at which the slot begins, in both texts; the same words may stand elsewhere too.
    """

    source: str
    target: str
    said: str
    meant: str
    at: int


@checked
def prompt_pairs(requests: Mapping[str, str], templates: Sequence[str] = TEMPLATES) -> list[PromptPair]:
    """Put each request into each template.

    Args:
        requests: what is said -> what is meant; ``""`` to erase it.
        templates: wordings with ``{}`` for the word.

    Raises:
        ValueError: for no requests, nothing said, one word that shall mean two things, no templates, or a
            template without exactly one ``{}``.

    >>> prompt_pairs({"cat": "dog"}, ["a {}"])
    [PromptPair(source='a cat', target='a dog', said='cat', meant='dog', at=2)]
    >>> prompt_pairs({"red": ""}, ["a {} cat"])[0].target
    'a cat'
    """
    _check_requests(requests)
    _check_templates(templates)
    return [
        PromptPair(t.replace("{}", said), _written(t, meant), said, meant, t.index("{}"))
        for said, meant in ((said.strip(), meant.strip()) for said, meant in requests.items())
        for t in templates
    ]


def _written(template: str, word: str) -> str:
    """The template with a word, or without one and the space that it would leave."""
    if word:
        return template.replace("{}", word)
    before, after = template.split("{}")
    return (before + after.lstrip()).strip() if before.endswith(" ") else (before + after).strip()


def texts_of(pairs: Sequence[PromptPair]) -> list[str]:
    """Return all texts of some pairs, each once."""
    return list(dict.fromkeys(text for p in pairs for text in (p.source, p.target)))


@checked
def slots(source: Words, target: Words, pair: PromptPair, tokens: Tokens) -> tuple[list[int], list[int]]:
    """Return the tokens of both texts that give rows: the slot's last one, or all from there on.

    Only the slot counts, not the same word elsewhere. Where a token holds the slot's end and letters behind
    it ("two {}s"), the last one is, on both sides, the first that ends at the same letter.

    Raises:
        LookupError: if no token stands for the slot, or the tokenizer does not know its word.

    >>> pair = PromptPair("cats", "dogs", "cat", "dog", 0)
    >>> one = Words("cats", ("<s>", "cats", "</s>"), ((0, 0), (0, 4), (0, 0)))
    >>> two = Words("dogs", ("<s>", "dog", "s", "</s>"), ((0, 0), (0, 3), (3, 4), (0, 0)))
    >>> slots(one, two, pair, "subject"), slots(one, two, pair, "subject+end")
    (([1], [2]), ([1, 2], [2, 3]))
    """
    if not pair.meant:
        last, gap = max(source.at(pair.at, pair.at + len(pair.said))), gap_of(target, pair.at)
        if tokens == "subject":
            return [last], [gap]
        return list(range(last, len(source.tokens))), list(range(gap, len(target.tokens)))
    sides = (source, pair.at + len(pair.said)), (target, pair.at + len(pair.meant))
    for words, end in sides:
        words.at(pair.at, end)
    ends = [{max(b - end, 0) for _, b in words.spans if b > pair.at} for words, end in sides]
    behind = min(ends[0] & ends[1], default=0)
    lasts = [max(words.at(pair.at, end + behind)) for words, end in sides]
    if tokens == "subject":
        return [lasts[0]], [lasts[1]]
    first, second = (
        list(range(last, len(words.tokens))) for last, (words, _) in zip(lasts, sides, strict=True)
    )
    return first, second


def gap_of(words: Words, at: int) -> int:
    """Return the token that stands where a word was left out: the next one of the text, or its end.

    >>> gap_of(Words("a cat", ("<s>", "a", "cat", "</s>"), ((0, 0), (0, 1), (2, 5), (0, 0))), 2)
    2
    """
    later = [i for i, (a, b) in enumerate(words.spans) if b > a >= at]
    return min([*later, words.end, len(words.tokens) - 1])


def aligned(source: Sequence[int], target: Sequence[int]) -> list[int]:
    """Return a target slot for each source slot, in order; the last one again where there are too few.

    >>> aligned([2, 3, 4, 5], [4, 5]), aligned([2], [4, 5])
    ([4, 5, 5, 5], [4])
    """
    return [target[min(i, len(target) - 1)] for i in range(len(source))]


def rows(
    states: Mapping[str, TokenStates], pairs: Sequence[PromptPair], tokens: Tokens | Pick
) -> tuple[Float[Tensor, "row channel"], Float[Tensor, "row channel"]]:
    """Return the states of the source texts and of the target texts, row by row side by side, in float64.

    Args:
        states: of every text of the pairs, in the input space of the layers to edit.
        pairs: what is asked for.
        tokens: which tokens of a text give rows; or a function of both texts that lines them up itself.

    Raises:
        LookupError: for a word that the tokenizer loses, or does not know.
    """
    keys, targets = [], []
    for pair in pairs:
        a, b = states[pair.source], states[pair.target]
        if isinstance(tokens, str):
            source, target = slots(a.words, b.words, pair, tokens)
            target = aligned(source, target)
        else:
            source, target = map(list, tokens(a.words, b.words, pair))
        keys.append(a.values[source])
        targets.append(b.values[target])
    return torch.cat(keys).double(), torch.cat(targets).double()


def kept_rows(states: Mapping[str, TokenStates], keep: Sequence[str]) -> Tensor | None:
    """Return the states of all tokens of the texts that must be read as before, in float64; None for none."""
    return torch.cat([states[text].values for text in keep]).double() if keep else None


def _check_requests(requests: Mapping[str, str]) -> None:
    if not requests:
        raise UsageError(
            f'requests is {requests!r}; write what is said and what is meant: {{"firefighter": "cook"}}'
        )
    meanings: dict[str, str] = {}
    for said, meant in requests.items():
        if not said.strip():
            raise UsageError(
                f'the request {said!r}: {meant!r} says nothing; write the word that is said, and "" as what '
                "it means to erase it"
            )
        other = meanings.setdefault(" ".join(said.lower().split()), meant)
        if other.strip() != meant.strip():
            raise UsageError(f"{said!r} is asked to mean {other!r} and {meant!r}; choose one")


def _check_templates(templates: Sequence[str]) -> None:
    if not templates:
        raise UsageError(f"templates is {templates!r}; give a list of wordings, like {list(TEMPLATES)}")
    for template in templates:
        if template.count("{}") != 1:
            raise UsageError(f"the template {template!r} needs exactly one {{}} where the word goes")
