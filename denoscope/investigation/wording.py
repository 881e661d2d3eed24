"""In which texts an edit is tried: the edited wording, other wordings of the same thing, and other things."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..analysis.edit_evaluation.prompts import EvaluationPrompt, evaluation_prompts
from ..models import zoo
from ..models.errors import UsageError
from ..models.text.prompt import spelling

PLAIN = ("a picture of a {}", "a painting of a {}", "a small {}")
"""Other wordings, for a model about whose captions nothing is known."""
OTHERS = (
    "dog",
    "cat",
    "house",
    "apple",
    "bicycle",
    "flower",
    "car",
    "tree",
    "boat",
    "horse",
    "chair",
    "bird",
)
"""Other things, for such a model."""


@dataclass(frozen=True)
class Wording:
    """Texts with ``{}`` where the word goes.

    Args:
        about: the word that is edited.
        change_to: what it shall mean.
        efficacy: the edited wording.
        generality: other wordings of the same thing.
        neighbourhood: other things, each with its templates.
        keep: texts about still other things, which the edit is solved to leave alone.
    """

    about: str
    change_to: str
    efficacy: tuple[str, ...]
    generality: tuple[str, ...]
    neighbourhood: Mapping[str, tuple[str, ...]]
    keep: tuple[str, ...] = ()

    def evaluation_prompts(self) -> list[EvaluationPrompt]:
        """Return what the edit is tried on."""
        request = {self.about: self.change_to}
        return evaluation_prompts(request, self.efficacy, self.generality, self.neighbourhood)

    def fitting(self, fits: Callable[[str], bool]) -> Wording:
        """Leave out further texts that a model cannot read; the edited wording itself stays.

        Args:
            fits: whether the model can read a text.
        """
        words = (self.about, self.change_to)
        return replace(
            self,
            generality=tuple(t for t in self.generality if all(fits(t.format(w)) for w in words)),
            neighbourhood={
                w: kept
                for w, templates in self.neighbourhood.items()
                if (kept := tuple(t for t in templates if fits(t.format(w))))
            },
            keep=tuple(t for t in self.keep if fits(t)),
        )


def wording(model: str, prompt: str, about: str, change_to: str) -> Wording:
    """Return the wordings to try; for an embedded model they stay inside its world.

    The neighbourhood is of the same kind as ``about`` (people, or things) in its own wording, and of the
    other kind in a plain one. What the edit must keep are others of these lists: it is not tested on these.

    Args:
        model: name of the model.
        prompt: the text that holds ``about``.
        about: the word that is edited.
        change_to: what it shall mean.

    Raises:
        ValueError: if the prompt does not hold the word exactly once.
    """
    own, world = template(prompt, about), _world(model)
    lists: list[tuple[Sequence[str], str, int]]
    if not world:
        lists, variants = [(OTHERS, own, 4)], tuple(t for t in PLAIN if t != own)
    else:
        kinds: list[Sequence[str]] = [world["professions"], world.get("things", ())]
        peers, rest = kinds if about.lower() in world["people"] else kinds[::-1]
        lists, variants = [(peers, own, 4), (rest, "an emoji of a {}", 2)], _variants(own, world)
    neighbourhood: dict[str, tuple[str, ...]] = {}
    keep: list[str] = []
    for words, form, n in lists:
        tested = _some(words, n, about, change_to)
        neighbourhood |= {w: (fit(form, w),) for w in tested}
        keep += [fit(form, w).format(w) for w in _some(words, 12, about, change_to, *tested)]
    return Wording(about, change_to, (own,), variants, neighbourhood, tuple(keep))


def template(prompt: str, word: str) -> str:
    """Put ``{}`` in the place of a word of a prompt.

    Raises:
        ValueError: if the prompt does not hold the word exactly once, or holds braces.

    >>> template("a red cat", "cat")
    'a red {}'
    """
    pattern = spelling(word)
    if len(pattern.findall(prompt)) != 1 or "{" in prompt or "}" in prompt:
        raise UsageError(
            f"{word!r} must be in the prompt {prompt!r} exactly once, and there must be no braces"
        )
    return pattern.sub("{}", prompt)


def fit(template: str, word: str) -> str:
    """Let the article before ``{}`` fit the word.

    >>> fit("an emoji of a {}", "apple"), fit("an {}", "dog")
    ('an emoji of an {}', 'a {}')
    """
    article = "an" if word[:1].lower() in "aeiou" else "a"
    return re.sub(r"\ban? \{\}", f"{article} {{}}", template)


def same(words: str) -> list[str]:
    """The words in small letters, so that "red apple" and "apple" are seen to speak of one thing."""
    return words.lower().split()


def _world(name: str) -> dict[str, Any]:
    file = zoo.ZOO[name] / "world.json" if name in zoo.ZOO else None
    found: dict[str, Any] = json.loads(file.read_text()) if file is not None and file.is_file() else {}
    return found


def _some(words: Sequence[str], n: int, *taken: str) -> list[str]:
    """Return n words spread evenly over a list, none of which shares a word with those taken."""
    used = {part for word in taken for part in same(word)}
    free = [w for w in words if not used & {*same(w)}]
    return [free[(2 * i + 1) * len(free) // (2 * n)] for i in range(min(n, len(free)))]


def _variants(own: str, world: Mapping[str, Any]) -> tuple[str, ...]:
    """Exchange the template's style and gender for others of the world: up to two of each."""
    found = []
    for values in (world.get("genders", ()), world.get("styles", ())):
        said = [v for v in values if re.search(rf"\b{re.escape(v)}\b", own)]
        others = [v for v in values if v not in said]
        found += [re.sub(rf"\b{re.escape(said[0])}\b", v, own) for v in others[:2] if said]
    return tuple(found) or ("an emoji of a {}",)
