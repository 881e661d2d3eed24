"""Many edits beside each other: one after the other, and all in one solve."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from torch import Tensor

from ..investigation.wording import same
from ..models.errors import UsageError
from ..models.store.store import Store
from .concept import STILL, Concept, Probe, drawn, together
from .methods import Method
from .painting import Painter
from .planning import Plan
from .trial import Clean, Layers, Tried, attempt, painted

ORDERS = ("one after the other", "at once")
MOST = 16
"""Texts of neighbours, and of bystanders, that many edits are tried on."""


def chosen_many(concepts: Sequence[Concept], n: int) -> list[Concept]:
    """Return which n concepts are edited, in which order; it does not depend on the given one."""
    return drawn(concepts, n, salt="many")


def probes_of(concepts: Sequence[Concept]) -> list[Probe]:
    """Return what many edits are tried on: every edited wording, and things that name none of the words."""
    said = [same(c.said) for c in concepts]
    found = {p.prompt: p for c in concepts for p in c.of("efficacy")[:1]}
    for aim in STILL:
        free = {
            p.prompt: p
            for c in concepts
            for p in c.of(aim)
            if p.prompt not in found and not any(_holds(same(p.prompt), words) for words in said)
        }
        found |= {text: free[text] for text in list(free)[:MOST]}
    return list(found.values())


def _holds(words: Sequence[str], some: Sequence[str]) -> bool:
    """Whether some words stand in a row among others."""
    return any(list(words[i : i + len(some)]) == list(some) for i in range(len(words)))


def parts_of_many(plan: Plan, method: Method, order: str, concepts: Sequence[Concept]) -> dict[str, Any]:
    """What a trial of many edits depends on."""
    base = {"what": "many", "order": order, **plan.about, "judge": plan.judged_by, "seeds": list(plan.few)}
    return {**base, "method": plan.asked(method), "concepts": [c.told for c in concepts]}


def repeated(  # noqa: PLR0917  # all that a trial needs
    painter: Painter,
    store: Store,
    method: Method,
    order: str,
    concepts: Sequence[Concept],
    known: Callable[[], Clean],
    layers: Layers,
) -> Tried:
    """Return what came of many edits, made and kept if it is not there."""
    plan = painter.plan

    def make() -> tuple[dict[str, Tensor], dict[str, Any]]:
        base = known()  # before the edits
        with ExitStack() as stack:
            about = _made(stack, plan, method, order, concepts, layers)
            if about["reason"] is not None:
                return {}, about
            tensors, measured = painted(painter, base, plan.few)
        return tensors, {**about, **measured}

    return Tried.of(store.make(parts_of_many(plan, method, order, concepts), make))


def _made(  # noqa: PLR0917  # all that a trial needs
    stack: ExitStack, plan: Plan, method: Method, order: str, concepts: Sequence[Concept], layers: Layers
) -> dict[str, Any]:
    """Make the edits and apply them: each on the model as the ones before left it, or all in one solve."""
    if order == ORDERS[1]:
        try:
            requests = together(concepts)
        except UsageError as error:
            return {"reason": str(error), "seconds": 0.0, "made": 0}
        about = attempt(stack, plan, method, requests, layers)
        return {**about, "made": len(concepts) if about["reason"] is None else 0}
    start, done, refused = time.perf_counter(), 0, ""
    about = dict[str, Any]()
    for concept in concepts:
        one = attempt(stack, plan, method, concept.requests, layers)
        refused = refused or one["reason"] or ""
        if one["reason"] is None:
            done, about = done + 1, one
    seconds = time.perf_counter() - start
    if not done:
        return {"reason": refused, "seconds": seconds, "made": 0}
    return {**about, "seconds": seconds, "made": done}
