"""Try it: what still comes when somebody tries, by cheap attacks alone."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import xarray as xr

from ...analysis.erasure.attacks import CHEAP, PROBES
from ...analysis.erasure.budget import Budget
from ...analysis.erasure.embedding import can_fit
from ...analysis.erasure.trying import robustness
from ...analysis.erasure.world import Meter, World
from ...editing.edit import Edit
from ...models.base import Model
from ...models.errors import UsageError
from ...models.progress import Progress, quiet
from ..case import Setup

FITTED = 50_000_000
"""Denoisers of more parameters are not gone through backwards for a page."""
WORDINGS = 2
"""So many of the other wordings are tried."""
FITTING = 3
"""Steps of a quick fit for each sampling step, at most those of ``Budget.short()``: brief runs stay brief."""


def attack(
    setup: Setup,
    edit: Edit,
    progress: Progress,
    *,
    probes: Sequence[str] | None = None,
    quick: bool = True,
) -> xr.Dataset:
    """Try what an edit took away; for a page other wordings, clean text rows, half-made pictures, one token.

    Args:
        setup: of the case; it has a judge.
        edit: what was made.
        progress: called with (done, total, what).
        probes: which; None is all, or with ``quick`` the cheap ones, fits of large models aside.
        quick: with a small budget.

    Raises:
        UsageError: without a judge.
    """
    if setup.judge is None:
        raise UsageError(f"no judge ships with {setup.case.model!r}; give one: judge=...")
    chosen = (cheap(setup) if quick else list(PROBES)) if probes is None else list(probes)
    words = setup.wording
    found = robustness(
        setup.model,
        edit.applied,
        words.about,
        words.change_to,
        judge=setup.judge,
        template=words.efficacy[0],
        wordings=wordings_of(setup),
        others=words.peers,
        probes=chosen,
        budget=short(setup) if quick else Budget(),
        progress=progress,
        **setup.run,
    )
    return found.data


def cheap(setup: Setup) -> list[str]:
    """Which attempts a page makes: fits of large models aside."""
    size = sum(p.numel() for p in setup.model.denoiser.parameters())
    fitting = size <= FITTED and can_fit(setup.model)
    return [name for name in CHEAP if name != "embedding" or fitting]


def short(setup: Setup) -> Budget:
    """The budget of a page."""
    most = Budget.short()
    return replace(most, steps=tuple(min(n, FITTING * setup.case.steps) for n in most.steps))


def wordings_of(setup: Setup) -> dict[str, str]:
    """Other wordings that are tried, by name."""
    words = setup.wording
    return {f"“{t.replace('{}', words.about)}”": t for t in words.generality[:WORDINGS]}


def attack_rows(setup: Setup) -> int:
    """Rows of the denoiser that a page's attempts take."""
    words, case, budget = setup.wording, setup.case, short(setup)
    world = World(
        setup.model, nothing, words.about, words.change_to, words.efficacy[0], wordings_of(setup), [], None,
        {}, setup.seeds, case.steps, setup.guidance, 16, budget, Meter(quiet),
    )  # fmt: skip
    probes = cheap(setup)
    given = budget.pictures * world.length * world.branches if "embedding" in probes else 0
    return 2 * world.painting + given + sum(PROBES[name].count(world) for name in probes)


def nothing(_: Model) -> AbstractContextManager[None]:
    """A change that is none."""
    return nullcontext()
