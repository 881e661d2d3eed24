"""What is in a store: its studies, how far they are, how long they still take, what they cost."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..arguments import checked
from ..errors import MissingFileError
from .ledger import DATABASE, Ledger

SCORES = ("scores", "fit")
"""Arrays that are exported: of causal tracing, and of judges. The others are latents and pictures."""
_NAMES = ("what", "study", "about", "rows", "seconds")
_SCORES = """
SELECT studies.what, studies.id, units.about, units.rows, units.seconds, units.arrays, units.key
FROM units JOIN studies ON studies.id = units.study
    OR EXISTS (SELECT 1 FROM members WHERE members.study = studies.id AND members.key = units.key)
WHERE units.arrays IN (?, ?) ORDER BY studies.begun, units.made
"""


@dataclass(frozen=True, eq=False)
class StudyRecord:
    """One study of a store.

    Args:
        folder: the store.
        id: its hash, the same on every machine.
        what: the function that made it.
        about: what was told of it.
        done: whether it came to its end.
        units: how many of its units are there.
        total: how many there will be.
        seconds: spent in units that this study made, those inside others included.
        rows: network rows of its units.
        bytes: of its arrays, of all units that it made.
        machines: what computed them.
    """

    folder: Path
    id: str
    what: str
    about: Mapping[str, Any]
    done: bool
    units: int
    total: int
    seconds: float
    rows: int
    bytes: int
    machines: tuple[Mapping[str, str], ...]

    @property
    def left(self) -> float | None:
        """Seconds that it will still take, if it goes on as before; None if nothing is there yet."""
        if self.done:
            return 0.0
        return self.seconds / self.units * max(0, self.total - self.units) if self.units else None


@checked
def read_studies(folder: str | Path) -> list[StudyRecord]:
    """Return the studies of a store, or of all stores in a folder, oldest first.

    Raises:
        FileNotFoundError: if there is no store.
        RuntimeError: for a store that is damaged, or of a newer version.
    """
    return [record for store in _stores(Path(folder)) for record in _read(store)]


def units_table(folder: str | Path) -> list[dict[str, Any]]:
    """Return all scores of a store: one record for each unit and position.

    Units that several studies share are told of each. One that is damaged is left out, with a warning.

    Raises:
        as ``read_studies``.
    """
    found = []
    for store in _stores(Path(folder)):
        with Ledger(store, None) as ledger:
            for *told, array, key in ledger.select(_SCORES, SCORES):
                kept = ledger.get(key)
                one = {"store": str(store), **dict(zip(_NAMES, told, strict=True)), "unit": key}
                values = [] if kept is None else kept.tensors[array].flatten().tolist()
                found += [
                    {**one, "array": array, "position": i, "value": float(v)} for i, v in enumerate(values)
                ]
    return found


def _stores(folder: Path) -> list[Path]:
    inside = sorted(path.parent for path in folder.glob(f"*/{DATABASE}"))
    found = [folder, *inside] if (folder / DATABASE).is_file() else inside
    if not found:
        raise MissingFileError(
            f"there is no store in {str(folder)!r}; name the folder that was given as store="
        )
    return found


def _read(store: Path) -> list[StudyRecord]:
    with Ledger(store, None) as ledger:
        rows = ledger.select("SELECT id, what, about, done, units FROM studies ORDER BY begun")
        counted = _by_study(ledger, "SELECT members.study, COUNT(*), TOTAL(units.rows) FROM members "
                                    "JOIN units USING (key) GROUP BY members.study")  # fmt: skip
        spent = _by_study(ledger, "SELECT study, SUM(seconds), SUM(bytes) FROM units GROUP BY study")
        made = ledger.select("SELECT DISTINCT study, machine FROM units")
    records = []
    for study, what, about, done, total in rows:
        units, n_rows = counted.get(study, (0, 0))
        seconds, size = spent.get(study, (0.0, 0))
        machines = tuple(json.loads(m) for s, m in made if s == study)
        records.append(
            StudyRecord(store, study, what, json.loads(about), done is not None, units, total, seconds,
                        int(n_rows), size, machines)
        )  # fmt: skip
    return records


def _by_study(ledger: Ledger, query: str) -> dict[str, tuple[Any, ...]]:
    return {study: tuple(rest) for study, *rest in ledger.select(query)}
