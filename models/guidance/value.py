"""Guidance as a value: which branches a run has, and how their outputs become one; and terms to add to it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..adapter import Adapter
from ..errors import UsageError
from ..run.context import Branch
from ..run.levels import Step
from .acting import ActsAt, check_acts, factor, factors
from .parts import Combined, GuidanceBranch, GuidanceContext


class Guidance(ABC):
    """How outputs of several branches become one; a frozen value. ``guidance=4.0`` means ``CFG(4.0)``.

    ``guidance + term`` adds a ``Term`` to its output.
    """

    told_scale: float | None = None
    """The scale that networks are told which were distilled from guidance."""

    @abstractmethod
    def branches(self, model: Adapter) -> tuple[GuidanceBranch, ...]:
        """All branches that a run of this model may have; one of them is "cond"."""

    def active(self, step: Step, memory: Mapping[str, Tensor]) -> Collection[Branch] | None:  # noqa: ARG002
        """Return the branches that are needed at a step; None is all. The others are not computed."""
        return None

    @abstractmethod
    def combine(
        self, outputs: Mapping[Branch, Tensor], context: GuidanceContext, memory: Mapping[str, Tensor]
    ) -> Tensor | Combined:
        """Return the guided output, [sample, ...].

        Args:
            outputs: of each branch, the network's own output [sample, ...].
            context: the moment.
            memory: what the last step left; empty at the first.
        """

    def check(self, model: Adapter, steps: Sequence[Step]) -> None:  # noqa: B027 - most have nothing to say
        """Raise ValueError if it cannot act in a run of these steps."""

    def __add__(self, other: Guidance) -> Sum:
        """Return both: the branches' guidance of one, and the terms of each, in the order given."""
        if not isinstance(other, Guidance):
            return NotImplemented
        bases = [g for part in (self, other) for g in _taken_apart(part) if not isinstance(g, Term)]
        terms = [g for part in (self, other) for g in _taken_apart(part) if isinstance(g, Term)]
        if len(bases) > 1:
            raise UsageError(
                f"{bases[0]} and {bases[1]} both say how the branches become one; take one of them, and add "
                "terms to it: CFG(4.0) + PAG(3.0)"
            )
        return Sum(bases[0] if bases else None, tuple(terms))


class Term(Guidance):
    """Something that is added to the guided output; alone, to the conditional one.

    A subclass is a frozen dataclass that says its ``strength`` and ``change``, and the branches that it needs
    beside "cond" by ``needs`` and ``made``. At strength 0 it is as if it were not there.
    """

    steps: ActsAt = None
    """At which steps it acts, or a factor for each."""

    @property
    def needs(self) -> tuple[Branch, ...]:
        """Names of the branches that it reads beside "cond"."""
        return ()

    @property
    @abstractmethod
    def strength(self) -> float:
        """How strongly it acts; at 0 not at all."""

    @abstractmethod
    def change(self, output: Tensor, outputs: Mapping[Branch, Tensor], context: GuidanceContext) -> Tensor:
        """Return what is added to the guided output at factor 1, [sample, ...].

        Args:
            output: the guided output so far.
            outputs: of each branch.
            context: the moment.
        """

    def made(self, model: Adapter) -> tuple[GuidanceBranch, ...]:  # noqa: ARG002
        """Return the branches of ``needs``."""
        return ()

    def branches(self, model: Adapter) -> tuple[GuidanceBranch, ...]:
        """The conditional branch, and at another strength than 0 its own."""
        return (GuidanceBranch("cond"), *(self.made(model) if self.strength else ()))

    def active(self, step: Step, memory: Mapping[str, Tensor]) -> Collection[Branch] | None:  # noqa: ARG002
        """Its own branches are needed where it acts."""
        acts = self.strength and factor(self.steps, step)
        return ("cond", *(self.needs if acts else ()))

    def check(self, model: Adapter, steps: Sequence[Step]) -> None:  # noqa: ARG002
        """Raise ValueError if it acts at steps that the run does not have."""
        check_acts(type(self).__name__, self.steps, len(steps))

    def added(
        self, output: Tensor, outputs: Mapping[Branch, Tensor], context: GuidanceContext
    ) -> Tensor | None:
        """Return what is added at this moment; None where it does not act. Arguments as ``change``'s."""
        share = factors(self.steps, context.steps, output) if self.strength else 0.0
        if isinstance(share, float) and share == 0:
            return None
        change = self.change(output, outputs, context)
        return change if isinstance(share, float) and share == 1 else share * change

    def combine(
        self,
        outputs: Mapping[Branch, Tensor],
        context: GuidanceContext,
        memory: Mapping[str, Tensor],  # noqa: ARG002
    ) -> Tensor:
        """Return the conditional output, with what is added."""
        added = self.added(outputs["cond"], outputs, context)
        return outputs["cond"] if added is None else outputs["cond"] + added


@dataclass(frozen=True)
class Sum(Guidance):
    """A guidance with terms: each sees the output so far, and adds to it.

    Args:
        base: how the branches become one; None is the conditional branch alone.
        terms: what is added, in this order.
    """

    base: Guidance | None
    terms: tuple[Term, ...]

    @property
    def told_scale(self) -> float | None:  # type: ignore[override]  # a value here
        """The base's."""
        return None if self.base is None else self.base.told_scale

    def branches(self, model: Adapter) -> tuple[GuidanceBranch, ...]:
        """The branches of all parts, each name once.

        Raises:
            ValueError: if two parts call different branches by one name.
        """
        found: dict[Branch, GuidanceBranch] = {}
        for part in _taken_apart(self):
            for branch in part.branches(model):
                if found.setdefault(branch.name, branch) != branch:
                    raise UsageError(
                        f"two parts of the guidance have a branch {branch.name!r}, and not the same one; "
                        "give one of them another name: PAG(3.0, name='also perturbed')"
                    )
        return tuple(found.values()) or (GuidanceBranch("cond"),)

    def active(self, step: Step, memory: Mapping[str, Tensor]) -> Collection[Branch] | None:
        """The branches that any part needs."""
        wanted = [part.active(step, memory) for part in _taken_apart(self)]
        return None if None in wanted else {"cond", *(b for some in wanted for b in some or ())}

    def check(self, model: Adapter, steps: Sequence[Step]) -> None:
        """Raise ValueError if a part cannot act."""
        for part in _taken_apart(self):
            part.check(model, steps)

    def combine(
        self, outputs: Mapping[Branch, Tensor], context: GuidanceContext, memory: Mapping[str, Tensor]
    ) -> Combined:
        """Return the base's output with what the terms add, and what each part added."""
        cond = outputs["cond"]
        made = cond if self.base is None else self.base.combine(outputs, context, memory)
        combined = made if isinstance(made, Combined) else Combined(made, memory=memory)
        output = combined.output
        added = {} if self.base is None else {label(self.base): output - cond}
        for name, term in self.named():
            change = term.added(output, outputs, context)
            if term.strength:
                added[name] = torch.zeros_like(output) if change is None else change
            if change is not None:
                output = output + change
        return Combined(output, combined.direction, combined.memory, added)

    def named(self) -> Iterator[tuple[str, Term]]:
        """Yield each term with what the log calls it: "PAG", "PAG 2"."""
        met: list[str] = []
        for term in self.terms:
            met.append(label(term))
            n = met.count(label(term))
            yield (label(term) if n == 1 else f"{label(term)} {n}"), term


def label(guidance: Guidance) -> str:
    """Return what the log calls a guidance."""
    return type(guidance).__name__


def check_strength(what: str, name: str, value: float) -> None:
    """Raise ValueError for a strength that is not finite."""
    if not math.isfinite(value):
        raise UsageError(f"{name} of {what} is {value}; it is a finite number, 0 for nothing")


def _taken_apart(guidance: Guidance) -> list[Guidance]:
    """A sum's base and terms; anything else alone."""
    if not isinstance(guidance, Sum):
        return [guidance]
    return [*([] if guidance.base is None else [guidance.base]), *guidance.terms]
