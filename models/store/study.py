"""One call's long work, unit by unit in a store: what is there is not made again.

A unit's key is its content: the model as it is (weights, edits, adapters), scheduler, settings, what is read,
seeds, interventions, the metric, the version of the numerics. Nothing of the machine is in it, so the same
study has the same hash everywhere; on which machine a unit was made is noted beside it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from torch import Tensor

from .ledger import Kept, Ledger
from .store import Store

Made: TypeAlias = tuple[Mapping[str, Tensor], int]
"""A unit's arrays, and the network rows it took."""


@dataclass(frozen=True, eq=False)
class Study:
    """One call's work in a store that is open.

    Args:
        ledger: the store.
        id: the study's hash.
        counts: whether its units are the study's own, or parts of these.
        clock: seconds spent in units so far, so that units inside units are counted once.
    """

    ledger: Ledger
    id: str
    counts: bool
    clock: list[float]

    @property
    def inside(self) -> Study:
        """The same, for work inside a unit."""
        return replace(self, counts=False)

    def make(
        self, parts: Mapping[str, Any], make: Callable[[], Made], about: Mapping[str, Any] | None = None
    ) -> Kept:
        """Return a unit, made and kept first if it is not there, or is damaged.

        Args:
            parts: all that it depends on; JSON.
            make: returns its arrays, and how many network rows they took.
            about: what to tell of it; JSON.

        Raises:
            StateError: if another driver writes to the store.
            OSError: if it cannot be written.
        """
        kept = self.find(parts)
        if kept is None:
            start, inner = time.perf_counter(), self.clock[0]
            made = make()
            spent = time.perf_counter() - start - (self.clock[0] - inner)
            kept = self.put(parts, made, max(0.0, spent), about)  # several workers spend more than passes
        return kept

    def find(self, parts: Mapping[str, Any]) -> Kept | None:
        """Return a unit, if it is there; if not, the store is locked, for it is about to be made.

        Raises:
            StateError: if another driver writes to the store.
        """
        key = Store.key(**parts)
        kept = self.ledger.get(key)
        if kept is None:
            self.ledger.write()
            kept = self.ledger.get(key)  # a driver before may have made it meanwhile
        elif self.counts and not self.ledger.holds(self.id, key):  # another study made it
            self.ledger.write()
            self.ledger.count(self.id, key)
        return kept

    def put(
        self, parts: Mapping[str, Any], made: Made, seconds: float, about: Mapping[str, Any] | None = None
    ) -> Kept:
        """Keep a unit that ``find`` did not find, which took so many seconds; return it as ``find`` does.

        Raises:
            OSError: if it cannot be written.
        """
        self.clock[0] += seconds
        tensors, rows = made
        key = Store.key(**parts)
        return self.ledger.put(key, self.id, tensors, about or {}, rows, seconds, counts=self.counts)


@contextmanager
def studying(
    store: str | Path | Study | None,
    base: Mapping[str, Any] | None,
    what: str,
    parts: Mapping[str, Any],
    *,
    units: int,
    about: Mapping[str, Any] | None = None,
) -> Iterator[Study | None]:
    """Open a store for one study, which is noted in it, with its end.

    Args:
        store: its folder; one that is open already, for a part of a study; or None.
        base: from ``identity``; None without a store.
        what: the function's name.
        parts: all that the study depends on beside the base; JSON.
        units: how many units it will have.
        about: what to tell of it; JSON.

    Raises:
        StateError: as ``Ledger``.
    """
    if store is None or isinstance(store, Study):
        yield None if store is None else store.inside
        return
    study = Store.key(study=what, base=base, parts=parts)
    with Ledger(Path(store), base) as ledger:
        known = ledger.is_done(study)
        if known is None:
            ledger.write()
            ledger.begin(study, what, about or {}, units)
        yield Study(ledger, study, True, [0.0])
        if not known:
            ledger.write()
            ledger.end(study)
