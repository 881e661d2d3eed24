"""What an edit is asked for, and the texts that it is tried on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ..models.arguments import check_fields
from ..models.errors import UsageError
from ..models.store.canonical import json_hash

Aim = Literal["efficacy", "paraphrase", "capitals", "plural", "neighbour", "bystander"]
GENERALITY: tuple[Aim, ...] = ("paraphrase", "capitals", "plural")
STILL: tuple[Aim, ...] = ("neighbour", "bystander")
"""What an edit should leave as it was."""


@dataclass(frozen=True)
class Probe:
    """One text that is painted, and what its picture should show after the edit.

    Args:
        aim: what is tried: efficacy, a kind of generality, or a kind of specificity.
        prompt: the text that is painted.
        wanted: the text that the picture should fit after the edit; of neighbours and bystanders the prompt.
        others: the texts that it should fit less.

    Raises:
        ValueError: for an unknown aim, no others, or wanting one of them; and for a text of specificity that
            wants another.
    """

    aim: Aim
    prompt: str
    wanted: str
    others: tuple[str, ...]

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.others or self.wanted in self.others:
            raise UsageError(
                f"the picture of {self.prompt!r} should fit {self.wanted!r} better than {list(self.others)}; "
                "name at least one other text"
            )
        if self.aim in STILL and self.wanted != self.prompt:
            raise UsageError(
                f"a {self.aim} should stay what it is, but {self.prompt!r} wants {self.wanted!r}"
            )


@dataclass(frozen=True)
class Concept:
    """One request, and all that it is tried on.

    Args:
        kind: professions, objects, styles ...; any word.
        said: what is said.
        meant: what it is to mean.
        probes: the texts it is tried on, at least one of efficacy.

    Raises:
        ValueError: for nothing said or meant, one text that is tried twice, and no probe of efficacy.
    """

    kind: str
    said: str
    meant: str
    probes: tuple[Probe, ...]

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.said.strip() or not self.meant.strip() or self.said == self.meant:
            raise UsageError(f"{self.said!r} is to mean {self.meant!r}; write two words that differ")
        prompts = [p.prompt for p in self.probes]
        if len(set(prompts)) < len(prompts):
            twice = next(p for p in prompts if prompts.count(p) > 1)
            raise UsageError(f"{self.name}: {twice!r} is tried twice; each text is tried once")
        if not any(p.aim == "efficacy" for p in self.probes):
            raise UsageError(f"{self.name} has no text of efficacy; give the wording that is edited")

    @property
    def name(self) -> str:
        """``"firefighter -> cook"``."""
        return f"{self.said} -> {self.meant}"

    @property
    def requests(self) -> dict[str, str]:
        """What editing methods take."""
        return {self.said: self.meant}

    @property
    def told(self) -> dict[str, Any]:
        """All of it, as JSON."""
        found: dict[str, Any] = asdict(self)
        return found

    def of(self, *aims: Aim) -> list[Probe]:
        """Return the texts of some aims."""
        return [p for p in self.probes if p.aim in aims]


def drawn(concepts: Sequence[Concept], n: int, *, salt: str = "") -> list[Concept]:
    """Return n concepts in an order of their own, which does not depend on the order they are given in.

    >>> concepts = [Concept("x", w, "c", (Probe("efficacy", w, "c", (w,)),)) for w in ("a", "b")]
    >>> drawn(concepts, 1) == drawn(concepts[::-1], 1)
    True
    """
    return sorted(concepts, key=lambda c: json_hash([salt, c.name]))[:n]


def together(concepts: Sequence[Concept]) -> Mapping[str, str]:
    """Return one request for all concepts.

    Raises:
        ValueError: if one word is to mean two things.
    """
    found: dict[str, str] = {}
    for concept in concepts:
        if found.setdefault(concept.said, concept.meant) != concept.meant:
            raise UsageError(
                f"{concept.said!r} is asked to mean {found[concept.said]!r} and {concept.meant!r}; choose one"
            )
    return found
