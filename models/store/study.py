"""One call's long work, unit by unit in a store: what is there is not made again.

A unit's key is its content: the model as it is (weights, edits, adapters), scheduler, settings, what is read,
seeds, interventions, the metric, the version of the numerics. Nothing of the machine is in it, so the same
study has the same hash everywhere; on which machine a unit was made is noted beside it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from torch import Tensor

from ..base import Model
from ..errors import StateError, UsageError
from ..guidance.value import Guidance
from ..run.settings import Sampling
from .canonical import json_hash, plain_json
from .fingerprint import fingerprint
from .ledger import Kept, Ledger
from .numerics import NUMERICS
from .provenance import scheduler_config
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
        key = Store.key(**parts)
        kept = self.ledger.get(key)
        if kept is None:
            self.ledger.write()
            kept = self.ledger.get(key)  # a driver before may have made it meanwhile
        elif self.counts and not self.ledger.holds(self.id, key):  # another study made it
            self.ledger.write()
            self.ledger.count(self.id, key)
        if kept is None:
            start, inner = time.perf_counter(), self.clock[0]
            tensors, rows = make()
            own = time.perf_counter() - start - (self.clock[0] - inner)
            self.clock[0] += own
            kept = self.ledger.put(key, self.id, tensors, about or {}, rows, own, counts=self.counts)
        return kept


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


def identity(model: Model, how: Sampling, batch: int) -> dict[str, Any]:
    """Return what all units of a run share: the model as it is, scheduler, settings; JSON.

    Raises:
        StateError: if somebody watches or changes the model from outside: what that does is not known.
        UsageError: for a guidance that cannot be told in JSON.
    """
    if model.live.watched:
        raise StateError(
            "interventions of a surrounding context act on the model, and a store cannot know them; give "
            "them to the run itself, or leave out store"
        )
    guidance = {"guidance": _guidance(how.guided(model))}
    return {
        "family": type(model).__name__,
        "weights": fingerprint(model),
        "scheduler": {"class": type(model.scheduler).__name__, **scheduler_config(model.scheduler)},
        "size": list(model.size),
        "dtype": str(model.dtype).removeprefix("torch."),
        "settings": {**how.described(model), **guidance, "batch": batch},
        "numerics": NUMERICS,
    }


def digest(base: Mapping[str, Any]) -> str:
    """Return a hash of what units share, for their keys."""
    return json_hash(plain_json(base, "what a store shares"))


def spec_of(thing: Any, what: str) -> Any:
    """Return what a function is, as a value: its ``spec``.

    Args:
        thing: a metric, a judge: whatever has a ``spec``, which is JSON or a function that returns it.
        what: how to call it in an error.

    Raises:
        UsageError: for a function without one.
    """
    spec = getattr(thing, "spec", None)
    spec = spec() if callable(spec) else spec
    if spec is None:
        name = getattr(thing, "__qualname__", type(thing).__name__)
        raise UsageError(
            f"{what} {name} is a function, and a store cannot tell whether it is still the same one; give "
            "it a spec, which has to change whenever it does: "
            f"function.spec = {{'name': {name!r}, 'version': 1}}. Or leave out store"
        )
    return plain_json(spec, f"the spec of {what}")


def _guidance(guidance: Guidance) -> dict[str, Any]:
    try:
        if not is_dataclass(guidance):
            raise UsageError(f"it is no dataclass, but {type(guidance).__name__}")
        return {type(guidance).__name__: plain_json(asdict(guidance), "guidance")}
    except UsageError as error:
        raise UsageError(
            f"{guidance!r} cannot be told in a store's keys ({error}); give a number, or a guidance whose "
            "fields are numbers and texts, or leave out store"
        ) from None
