"""What a change is for: a word means another, is gone, has an attribute, or two of them evenly."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ..models.arguments import check_fields
from ..models.errors import UsageError
from ..models.text.prompt import occurrence, places
from .wording import same, world_of

Kind = Literal["change_to", "remove", "balance", "steer"]
KINDS: Mapping[Kind, str] = {
    "change_to": "--change-to WORD",
    "remove": "--remove",
    "balance": "--balance gender=woman,man",
    "steer": "--steer woman",
}
"""How each is asked for on the command line."""


@dataclass(frozen=True)
class Goal:
    """What is asked for.

    Args:
        kind: "change_to", "remove", "balance" or "steer".
        about: the word of the prompt that it is about.
        values: the word that it is to mean; nothing; the two attributes that shall come evenly; the attribute
            that it is to have, first, and those that it might have instead.

    >>> Goal("steer", "judge", ("woman", "man")).asked
    ('judge', 'woman judge')
    """

    kind: Kind
    about: str
    values: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def meant(self) -> str:
        """What the word is to be read as; empty where it is to be gone, or nothing else alone."""
        if self.kind == "change_to":
            return self.values[0]
        return self.naming(self.values[0]) if self.kind == "steer" else ""

    @property
    def asked(self) -> tuple[str, ...]:
        """What the unedited model is asked for outright, in place of the word."""
        if self.kind == "balance":
            return tuple(map(self.naming, self.values))
        return tuple(w for w in (self.about, self.meant) if w)

    @property
    def said(self) -> str:
        """The goal in words."""
        return {
            "change_to": f"“{self.about}” is read as “{self.meant}”",
            "remove": f"no “{self.about}” is painted",
            "balance": f"{self.about} is {' and '.join(self.values)} equally often",
            "steer": f"every {self.about} is {self.values[0] if self.values else ''}",
        }[self.kind]

    def naming(self, value: str) -> str:
        """The word with an attribute before it."""
        return f"{value} {self.about}"

    def written(self, template: str, words: str) -> str:
        """A template with the word, or others in its place; without any, without the gap they would leave."""
        if words:
            return template.replace("{}", words)
        return re.sub(r"\s+", " ", re.sub(r"\b(an?|the) \{\}|\{\}", "", template)).strip(" ,")

    def rivals(self, peers: Sequence[str]) -> tuple[str, ...]:
        """What a picture is compared with: it shows which of these fits best."""
        if self.kind in {"balance", "steer"}:
            named = tuple(map(self.naming, self.values))
            return named if len(named) > 1 else (*named, self.about)
        return tuple(dict.fromkeys([self.about, *filter(None, [self.meant]), *peers]))

    def wanted(self, rivals: Sequence[str]) -> list[bool]:
        """Which of them are what is asked for; of a balance, the first attribute."""
        if self.kind == "remove":
            return [r != self.about for r in rivals]
        first = self.asked[0] if self.kind == "balance" else self.meant
        return [r == first for r in rivals]


def goal_of(  # noqa: PLR0917  # what a case says of it
    model: str, prompt: str, about: str, change_to: str, remove: bool, balance: str, steer: str
) -> Goal:
    """Return the goal that was asked for.

    Raises:
        ValueError: for none or several, empty words, and an attribute that is in the prompt already or has
            no two values.
    """
    asked: dict[Kind, str | bool] = {
        "change_to": change_to, "remove": remove, "balance": balance, "steer": steer,
    }  # fmt: skip
    given = [kind for kind, value in asked.items() if value]
    word = occurrence(about)[0].strip()
    if len(given) > 1:
        raise UsageError(f"{' and '.join(KINDS[k] for k in given)} are given; an investigation has one goal")
    if not given:
        raise UsageError(
            f"change_to is empty, and there is no other goal; give one of: {', '.join(KINDS.values())}"
        )
    (kind,) = given
    if kind == "change_to":
        if not change_to.strip():
            raise UsageError("change_to is empty; give a word")
        if same(about) == same(change_to):
            raise UsageError(f"about and change_to are both {about!r}; change it to something else")
        return Goal(kind, word, (change_to,))
    if kind == "remove":
        return Goal(kind, word)
    values = _values(kind, balance or steer, world_of(model))
    for value in values:
        if places(prompt, value):
            raise UsageError(
                f"the prompt {prompt!r} says {value!r} already; leave it out, so that there is something to "
                f"{'balance' if kind == 'balance' else 'steer'}"
            )
    return Goal(kind, word, values)


def _values(kind: Kind, said: str, world: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """The attributes that were named, or those of the list that holds the one that was."""
    name, equals, rest = said.partition("=")
    values = [v.strip() for v in (rest if equals else said).split(",") if v.strip()]
    known = {key.removesuffix("s"): list(world.get(key, ())) for key in ("genders", "styles", "skins")}
    if kind == "steer" and len(values) == 1:
        others = next((list(v) for v in known.values() if values[0] in v), [])
        return (values[0], *(v for v in others if v != values[0]))
    if len(values) == len(set(values)) and (len(values) == 2 or (kind == "steer" and len(values) > 1)):
        return tuple(values)
    listed = known.get((name if equals else said).strip().removesuffix("s"), [])
    hint = f"; {said!r} is one of {', '.join(listed)}" if listed else ""
    raise UsageError(
        f"{kind} is {said!r}; write two values that go before the word: --balance gender=woman,man{hint}"
        if kind == "balance"
        else f"steer is {said!r}; write the value that is wanted, and perhaps others: --steer woman,man"
    )
