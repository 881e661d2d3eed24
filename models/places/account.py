"""An account of what acted: every call is compared with what was expected of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import pandas as pd

from ..errors import StateError
from ..run.context import TEXT, Branch, Call, CallContext, When
from ..site import Site


class AccountError(StateError):
    """Something acted elsewhere, more often, less often or on other rows than was asked for."""


class Planned(Protocol):
    """Where and when something is to act."""

    @property
    def site(self) -> Site:
        """Where."""

    @property
    def when(self) -> When:
        """When."""


@dataclass(frozen=True)
class Line:
    """What one intervention, or one traced site, met in a run.

    Args:
        site: where.
        calls: how many calls of the network it acted in.
        steps: indices of the steps, each once; empty in text encoders.
        rows: how many rows it met over all calls.
        branches: guidance branches of those rows.
    """

    site: Site
    calls: int
    steps: tuple[int, ...]
    rows: int
    branches: tuple[Branch, ...]


@dataclass(eq=False)
class _Tally:
    planned: Planned
    met: list[CallContext] = field(default_factory=list)
    calls: int = 0
    now: int = 0  # times it was reached in the present call


class Account:
    """The account of one run: ``lines``, one for each intervention and each traced site.

    Args:
        planned: what is to act.
    """

    def __init__(self, planned: Sequence[Planned]) -> None:
        self._tallies = [_Tally(p) for p in planned]
        self._called: set[str] = set()
        self._last = -1  # the latest step of all calls

    @property
    def sites(self) -> tuple[Site, ...]:
        """Where something is to act."""
        return tuple(tally.planned.site for tally in self._tallies)

    def note(self, index: int, contexts: Sequence[CallContext]) -> None:
        """The thing at ``index`` was reached in the present call, and acted on the rows of some contexts."""
        tally = self._tallies[index]
        tally.now += 1
        if tally.now > 1 and contexts:
            raise AccountError(
                f"{tally.planned.site} was reached {tally.now} times in one call of the network, so which "
                "time is meant cannot be known; likely causes: an IP-Adapter (a second attention with the "
                "same projections), double cross-attention, or a block that is called twice"
            )
        tally.met.extend(contexts)
        tally.calls += bool(contexts)

    def begin(self, call: Call) -> None:
        """A call of a network begins."""
        self._called.add(call.part)
        self._last = max([self._last, *(s.index for s in call.steps)])
        for tally in self._tallies:
            tally.now = 0

    def end(self, call: Call) -> None:
        """A call is over; raise AccountError for what it should have reached and did not."""
        for tally in self._tallies:
            site, when = tally.planned.site, tally.planned.when
            expected = call.reaches(site.component) and any(call.select(when, site.component))
            if expected and not tally.now:
                at = f" at step {call.steps[0].index}" if call.steps else ""
                raise AccountError(
                    f"{site} was not reached{at}, although {call.part} was called; likely causes: "
                    "projections fused by fuse_qkv_projections(), an attention processor of another kind, a "
                    "cache that skips blocks (disable_cache()), or a block that is switched off"
                )

    def check_samples(self, n: int) -> None:
        """Raise AccountError for what acted in text encoders on some of its samples alone, of ``n``."""
        for tally in self._tallies:
            site, when = tally.planned.site, tally.planned.when
            wanted = range(n) if when.rows is None else when.rows
            for branch in dict.fromkeys(c.branch for c in tally.met):
                met = {s for c in tally.met if c.branch == branch for s in c.samples}
                left = sorted(set(wanted) - met)
                if left and site.component.startswith(TEXT):
                    raise AccountError(
                        f"what is planned at {site} met samples {sorted(met)} of branch {branch!r}, and not "
                        f"{left}: prompts that are given encoded are not read again; give texts for all, or "
                        "When(rows=...) of those that are texts"
                    )

    def close(self) -> None:
        """The run is over; raise AccountError for what never acted, or not on all of its rows and steps."""
        for tally in self._tallies if self._called else ():
            site, when = tally.planned.site, tally.planned.when
            if not tally.calls:
                why = f"no call had rows of {when}"
                if site.component.startswith(TEXT):
                    why += "; prompts that are given encoded are not read again: give texts"
                raise AccountError(f"what is planned at {site} never acted: {why}")
            rows = set(when.rows or ()) - {s for c in tally.met for s in c.samples}
            steps = {s for s in when.steps or () if s > self._last}
            for name, lost in (("rows", rows), ("steps", steps)):
                if lost:
                    raise AccountError(
                        f"what is planned at {site} never acted at {name} {sorted(lost)} of {when}: no call "
                        "had them; leave them out"
                    )

    @property
    def lines(self) -> tuple[Line, ...]:
        """One line for each thing planned, in the order given."""
        return tuple(_line(tally) for tally in self._tallies)

    def __iter__(self) -> Iterator[Line]:
        return iter(self.lines)

    def __len__(self) -> int:
        return len(self._tallies)

    def __repr__(self) -> str:
        return f"Account({len(self)} sites)\n{self.to_frame().to_string()}" if len(self) else "Account()"

    def _repr_html_(self) -> str:
        return str(self.to_frame().to_html())

    def to_frame(self) -> pd.DataFrame:
        """Return a table: site, calls, steps, rows, branches."""
        rows: list[Mapping[str, Any]] = [
            {"calls": x.calls, "steps": _ranges(x.steps), "rows": x.rows, "branches": ", ".join(x.branches)}
            for x in self
        ]
        return pd.DataFrame(rows, index=pd.Index([str(x.site) for x in self], name="site"))


def _line(tally: _Tally) -> Line:
    steps = dict.fromkeys(c.step.index for c in tally.met if c.step is not None)
    branches = dict.fromkeys(c.branch for c in tally.met)
    rows = sum(len(c.samples) for c in tally.met)
    return Line(tally.planned.site, tally.calls, tuple(steps), rows, tuple(branches))


def _ranges(numbers: Sequence[int]) -> str:
    """Write numbers shortly: 0-3, 7."""
    parts: list[list[int]] = []
    for n in sorted(numbers):
        if parts and n == parts[-1][1] + 1:
            parts[-1][1] = n
        else:
            parts.append([n, n])
    return ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in parts)
