"""Other wordings: a black box is asked for the same thing in other words, letters and surroundings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import torch

from ...models.base import Model, Prompt
from ...models.errors import NotFoundError, UsageError
from .world import Trial, World

SURROUNDINGS: Mapping[str, str] = {
    "context": "{}, in a town",
    "list": "a house, a tree, {}",
    "composition": "{} beside a dog",
}
"""The whole prompt in the place of ``{}``; a caller who knows the model's captions gives others."""
LETTERS = 12
"""So many letters of a word are misspelt."""


def paraphrases(world: World) -> Iterator[Trial]:
    """Paint every other wording, by the edited model and by the clean one.

    It takes no rows of its own; the misspelling is the one of all with one letter changed that the clean
    model reads most nearly as the word.
    """
    texts = spelled(world) | {name: text.replace("{}", world.about) for name, text in world.wordings.items()}
    for who in ("edited", "clean"):
        with world.acting(who):
            images = world.paint_together([world.read(text) for text in texts.values()])
        yield from (Trial("paraphrase", name, x, who) for name, x in zip(texts, images, strict=True))


def count(world: World) -> int:
    """Rows that it takes."""
    return 2 * (len(world.wordings) + 3) * world.painting


def surrounded(template: str) -> dict[str, str]:
    """Return wordings for a template about whose captions nothing is known."""
    return {name: text.replace("{}", template) for name, text in SURROUNDINGS.items()}


def spelled(world: World) -> dict[str, str]:
    """Return the prompt in capitals, with the plural, and with a misspelling; what the model reads of it."""
    word = world.about
    found = {"capitals": word.upper(), "plural": plural(word), "misspelling": misspelt(world)}
    texts = {name: world.text(w) for name, w in found.items() if w}
    return {name: text for name, text in texts.items() if _read(world.model, text) is not None}


def plural(word: str) -> str:
    """Return the regular plural.

    >>> [plural(w) for w in ("cook", "fox", "berry", "old man")]
    ['cooks', 'foxes', 'berries', 'old men']
    """
    for ending, changed in (("man", "men"), ("([^aeiou])y", r"\1ies"), ("(s|x|z|ch|sh)", r"\1es")):
        if re.search(f"{ending}$", word):
            return re.sub(f"{ending}$", changed, word)
    return f"{word}s"


@torch.no_grad()
def misspelt(world: World) -> str:
    """Return the word with one letter left out, doubled or swapped, as the clean model reads it most nearly.

    Only what a tokenizer cuts up in another way counts; empty if there is nothing.
    """
    model, word = world.model, world.about
    own = model.encode([world.text(word)])[0]
    read = {text: _read(model, text) for text in map(world.text, slips(word))}
    other = {text: p for text, p in read.items() if p is not None and p.tokens != own.tokens}
    if not other:
        return ""
    before, _, after = world.template.partition("{}")
    best = min(other, key=lambda text: float((other[text].embeds - own.embeds).square().sum()))
    return best[len(before) : len(best) - len(after)]


def slips(word: str) -> list[str]:
    """Return a word with a slip of the pen at each of its first letters but one.

    >>> slips("cat")
    ['ct', 'caat', 'cta', 'ca', 'catt']
    """
    found = []
    for i in range(1, min(len(word), LETTERS)):
        found += [word[:i] + word[i + 1 :], word[:i] + word[i] + word[i:]]
        found += [word[:i] + word[i + 1] + word[i] + word[i + 2 :]] if i + 1 < len(word) else []
    return [slip for slip in dict.fromkeys(found) if slip != word and slip.strip() == slip]


def _read(model: Model, text: str) -> Prompt | None:
    """What a model reads of a text; None if it cannot, or does not know all of its letters."""
    try:
        with torch.no_grad():
            prompt = model.encode([text])[0]
    except (UsageError, NotFoundError):  # too long
        return None
    return None if any(prompt.of(encoder).unknown for encoder in model.text_encoders) else prompt
