"""What is compared, checked before any work is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ..models.base import Model
from ..models.errors import UsageError
from ..models.judges.choosing import TextJudge, about_judge, any_judge
from ..models.judges.embedded import load_judge
from ..models.load import load
from ..models.store.provenance import provenance
from ..models.zoo import ZOO
from .concept import Concept, drawn
from .methods import Make, Method, chosen
from .reading import embedded_concepts, read_concepts

STEPS = 5
MANY = (10, 50)
VOTERS = 4
"""Concepts that vote on the layers."""
FEW = 2
"""Seeds that edits beside each other are tried with."""


@dataclass(frozen=True, eq=False)
class Plan:
    """What is compared.

    Args:
        model: opened.
        methods: what makes edits.
        concepts: what they are asked for, each once.
        seeds: starting noises, the same for all.
        steps: sampling steps.
        guidance: guidance scale.
        judge: says what pictures show.
        many: how many edits are tried beside each other.
    """

    model: Model
    methods: tuple[Method, ...]
    concepts: tuple[Concept, ...]
    seeds: tuple[int, ...]
    steps: int
    guidance: float
    judge: TextJudge
    many: tuple[int, ...]

    @classmethod
    def of(  # noqa: PLR0913  # what edits takes, by name
        cls,
        model: Model | str,
        *,
        methods: Sequence[str] | Mapping[str, Make] | None = None,
        concepts: Sequence[Concept] | Sequence[str] | int | str | Path | None = None,
        seeds: int | Sequence[int] = 8,
        steps: int = STEPS,
        guidance: float | None = None,
        judge: Any = None,
        many: Sequence[int] = MANY,
        quick: bool = False,
    ) -> Plan:
        """Open what is named, and check it; as ``edits`` takes it.

        Raises:
            LookupError: for methods, concepts, models that there are not.
            ValueError: for what cannot be compared.
        """
        model = load(model) if isinstance(model, str) else model
        if not model.text_encoders:
            raise UsageError(f"{model.name} reads no text, so there is nothing to edit; give another model")
        made = cls(
            model,
            tuple(chosen(methods)),
            tuple(_concepts(model, concepts)),
            _seeds(seeds),
            steps,
            model.default_guidance if guidance is None else guidance,
            _judge(model, judge),
            tuple(many),
        )
        made = made.quicker() if quick else made
        _check(made)
        return made

    def quicker(self) -> Plan:
        """Return one concept of each kind, with few seeds and steps: for a first look."""
        kinds = dict.fromkeys(c.kind for c in self.concepts)
        some = [drawn([c for c in self.concepts if c.kind == kind], 1)[0] for kind in kinds]
        return replace(self, concepts=tuple(some), seeds=self.few, steps=min(self.steps, 6), many=(3,))

    @cached_property
    def about(self) -> dict[str, Any]:
        """Where every picture comes from: model, weights, scheduler, settings; JSON."""
        return provenance(self.model, steps=self.steps, guidance=self.guidance)

    @cached_property
    def judged_by(self) -> dict[str, str]:
        """What is known of the judge."""
        return about_judge(self.judge)

    @cached_property
    def voters(self) -> list[tuple[str, str]]:
        """Prompt and wanted text of the few concepts, drawn by name, that the found layers are found on."""
        some = drawn(self.concepts, VOTERS, salt="locating")
        return [(p.prompt, p.wanted) for c in some for p in c.of("efficacy")[:1]]

    def asked(self, method: Method) -> dict[str, Any]:
        """What is asked of a method: what tells it from others, and what its layers are found on."""
        return {**method.told, **({"found on": self.voters} if method.where == "found" else {})}

    @property
    def sizes(self) -> list[int]:
        """How many edits are tried beside each other, where there are so many concepts."""
        return [n for n in sorted(set(self.many)) if n <= len(self.concepts)]

    @property
    def few(self) -> tuple[int, ...]:
        """The seeds of edits beside each other."""
        return self.seeds[:FEW]

    def told(self) -> dict[str, Any]:
        """All of it, as JSON."""
        return {
            **self.about,
            "judge": self.judged_by,
            "methods": [m.name for m in self.methods],
            "concepts": len(self.concepts),
            "seeds": list(self.seeds),
            "many": self.sizes,
        }


def _concepts(model: Model, asked: Any) -> list[Concept]:
    if isinstance(asked, str | Path):
        return read_concepts(asked)
    given = [c for c in asked or () if isinstance(c, Concept)] if not isinstance(asked, int) else []
    if given:
        if len(given) < len(asked):
            raise UsageError("concepts holds names and Concepts; give the one or the other")
        return given
    if model.name not in ZOO:
        raise UsageError(
            f"the concepts that ship are of the embedded world, which {model.name} does not know; give "
            "concepts= a CSV file of your own (docs/bench-edits.md)"
        )
    every = embedded_concepts()
    if asked is None:
        return every
    if isinstance(asked, int):
        if not 0 < asked <= len(every):
            raise UsageError(f"concepts is {asked}; there are 1 to {len(every)}")
        return drawn(every, asked)
    found = [c for c in every if {c.said, c.kind, c.name} & set(asked)]
    missing = [a for a in asked if not any(a in (c.said, c.kind, c.name) for c in every)]
    if missing or not found:
        kinds = ", ".join(dict.fromkeys(c.kind for c in every))
        raise UsageError(
            f"no concept is called {missing or asked}; name words ({every[0].said} ...) or kinds: {kinds}"
        )
    return found


def _seeds(asked: int | Sequence[int]) -> tuple[int, ...]:
    found = tuple(range(asked)) if isinstance(asked, int) else tuple(asked)
    if not found or len(set(found)) < len(found):
        raise UsageError(f"seeds is {asked!r}; give at least one, each once")
    return found


def _judge(model: Model, asked: Any) -> TextJudge:
    if asked is not None:
        return any_judge(asked)
    if model.name not in ZOO:
        raise UsageError(f"no judge ships with {model.name}; give judge= a CLIP, a folder, or a function")
    return load_judge(model.name)


def _check(plan: Plan) -> None:
    if plan.steps < 1:
        raise UsageError(f"steps is {plan.steps}; it is at least 1")
    names = [c.name for c in plan.concepts]
    if not names or len(set(names)) < len(names):
        raise UsageError(f"concepts are {names}; give at least one, each once")
    if any(n < 2 for n in plan.many):
        raise UsageError(f"many is {list(plan.many)}; edits beside each other are at least 2")
