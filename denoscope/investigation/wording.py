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
from ..models.text.prompt import occurrence, places

PLAIN = ("a picture of a {}", "a painting of a {}", "a small {}")
"""Other wordings, for a model about whose captions nothing is known."""
QUALITIES = ("styles", "genders", "skins", "backgrounds")
"""Lists of an embedded model's world that hold no subjects; the last are colours."""
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
"""Other things, for such a model: they are tested, unless its judge knows others, and kept."""


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
        templates: still other wordings of the same thing, which the edit is solved for.
        peers: all that the model's world has of the same kind; if nothing is known of it, usual things.
    """

    about: str
    change_to: str
    efficacy: tuple[str, ...]
    generality: tuple[str, ...]
    neighbourhood: Mapping[str, tuple[str, ...]]
    keep: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()

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
            templates=tuple(t for t in self.templates if all(fits(t.format(w)) for w in words)),
        )


def wording(model: str, prompt: str, about: str, change_to: str, others: Sequence[str] = OTHERS) -> Wording:
    """Return the wordings to try; for an embedded model they stay inside its world.

    The neighbourhood is of the same kind as ``about`` (people, things, styles, genders ...) in its own
    wording, and of another kind in a plain one. What the edit must keep are others of these lists, or the
    same in other wordings: it is not tested on these.

    Args:
        model: name of the model.
        prompt: the text that holds ``about``.
        about: the word that is edited; ``"cook:2"`` is the second cook in the prompt.
        change_to: what it shall mean.
        others: what else to look for in pictures of a model about whose captions nothing is known.

    Raises:
        ValueError: if the prompt does not hold the word exactly once.
    """
    own, world = template(prompt, about), world_of(model)
    about = occurrence(about)[0]
    words = (about, change_to)
    found, (variants, solved), peers = (
        _in_world(own, words, world) if world else _anywhere(own, words, others)
    )
    neighbourhood = {w: (fit(o.form, w),) for o in found for w in o.tested}
    keep = [fit(form, w).replace("{}", w) for o in found for w in o.kept for form in o.forms]
    return Wording(about, change_to, (own,), variants, neighbourhood, tuple(keep), tuple(peers), solved)


@dataclass(frozen=True)
class _Others:
    """Other things: what is tested in a form, and what is kept in which forms."""

    tested: Sequence[str]
    form: str
    kept: Sequence[str]
    forms: Sequence[str]


_Variants = tuple[tuple[str, ...], tuple[str, ...]]
"""Other wordings: those that are tested, and those that an edit is solved for."""
_Found = tuple[list[_Others], _Variants, Sequence[str]]
"""Other things, other wordings, all things of the kind."""


def _anywhere(own: str, words: tuple[str, str], things: Sequence[str]) -> _Found:
    """For a model about whose captions nothing is known."""
    tested = _some(things, 4, *words)
    others = _Others(tested, own, _some(OTHERS, 12, *words, *tested), [own])
    return [others], (tuple(t for t in PLAIN if t != own), ()), _some(things, len(things), *words)


def _in_world(own: str, words: tuple[str, str], world: Mapping[str, Any]) -> _Found:
    """For an embedded model: in the wordings and with the things of its world."""
    alike, unlike = _kinds(world, words[0])
    quality = any(alike is world[kind] for kind in QUALITIES)  # then the subject may be exchanged too
    variants, found = _variants(own, world, subject=quality), []
    for names, form, n in ((alike, own, 4), (unlike, "an emoji of a {}", 2)):
        tested = _some(names, n, *words)
        few = quality and names is alike  # too few for others to be kept than are tested: in other forms
        kept = _some(names, 12, *words, *(() if few else tested))
        found.append(_Others(tested, form, kept, (variants[1] or variants[0])[:4] if few else [form]))
    return found, variants, alike


def _kinds(world: Mapping[str, Any], about: str) -> tuple[Sequence[str], Sequence[str]]:
    """The names of the same kind as a word, and those of another kind to try beside them."""
    known: Sequence[str] = world.get("things", ())
    for kind in QUALITIES:
        if about.lower() in world[kind]:
            return world[kind], known
    kinds: list[Sequence[str]] = [world["professions"], known]
    alike, others = kinds if about.lower() in world["people"] else kinds[::-1]
    return alike, others


def template(prompt: str, word: str) -> str:
    """Put ``{}`` in the place of a word of a prompt.

    Raises:
        ValueError: if the prompt does not hold the word exactly once, or holds braces.

    >>> template("a red cat", "cat"), template("a cat and a cat", "cat:2")
    ('a red {}', 'a cat and a {}')
    """
    found = places(prompt, word)
    if "{" in prompt or "}" in prompt:
        raise UsageError(f"the prompt {prompt!r} holds braces; write it without")
    if len(found) != 1:
        name = occurrence(word)[0]
        raise UsageError(
            f"{word!r} must be in the prompt {prompt!r} exactly once, and is there {len(found)} times"
            + (f"; say which is meant: '{name}:1', '{name}:2'" if len(found) > 1 else "")
        )
    [(first, last)] = found
    return f"{prompt[:first]}{{}}{prompt[last:]}"


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


def world_of(name: str) -> dict[str, Any]:
    """Return what an embedded model knows; empty for another."""
    file = zoo.ZOO[name] / "world.json" if name in zoo.ZOO else None
    found: dict[str, Any] = json.loads(file.read_text()) if file is not None and file.is_file() else {}
    return found


def _some(words: Sequence[str], n: int, *taken: str) -> list[str]:
    """Return n words spread evenly over a list, none of which shares a word with those taken."""
    used = {part for word in taken for part in same(word)}
    free = [w for w in words if not used & {*same(w)}]
    n = min(n, len(free))
    return [free[(2 * i + 1) * len(free) // (2 * n)] for i in range(n)]


def _variants(own: str, world: Mapping[str, Any], *, subject: bool) -> _Variants:
    """Exchange the template's style and gender, and perhaps its subject, for others.

    The first two of each are tested, some of the rest are solved for.
    """
    tested, solved = [], []
    kinds = [world.get("genders", ()), world.get("styles", ())]
    for values in [_kinds_of_subject(own, world), *kinds] if subject else kinds:
        said = sorted((v for v in values if re.search(rf"\b{re.escape(v)}\b", own)), key=len)
        others = [v for v in values if v not in said] if said else []
        texts = [re.sub(rf"\b{re.escape(said[-1])}\b", v, own) for v in others]
        tested += texts[:2]
        solved += texts[2 :: max(1, (len(texts) - 2) // 6)][:6]
    return tuple(dict.fromkeys(tested)) or ("an emoji of a {}",), tuple(dict.fromkeys(solved))


def _kinds_of_subject(own: str, world: Mapping[str, Any]) -> Sequence[str]:
    """The people or the things, whichever a template speaks of; a person's gender is no subject."""
    genders = world.get("genders", ())
    for names in (world["professions"], world.get("things", ())):
        if any(re.search(rf"\b{re.escape(n)}\b", own) for n in names if n not in genders):
            return [n for n in names if n not in genders]
    return ()
