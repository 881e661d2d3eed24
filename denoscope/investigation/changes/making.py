"""The stage of the changes: offered, saved as files, judged; read again where a run goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr
from torch import Tensor

from ...editing.edit import Edit
from ...models.errors import UsageError
from ...models.progress import Progress, part
from ...probes.dictionary import Dictionary
from ...report.changes import Changes
from ..case import Setup
from ..folder import CHANGES
from .acting import Push, Steer
from .change import Acting, Change, file_name
from .judging import judged
from .offering import offers

OFFERING, WHOLE = 30, 100
"""How much of the work is finding directions and strengths, for the bar, in hundredths."""


@dataclass(frozen=True, eq=False)
class Made:
    """What came of the stage.

    Args:
        data: for the store; its attributes ``told`` and ``skipped`` are JSON.
        changes: by name.
        kept: the best edit's name and pictures, where this process painted them.
    """

    data: xr.Dataset
    changes: Mapping[str, Change]
    kept: tuple[str, Mapping[str, Tensor]] | None = None

    @property
    def table(self) -> Changes:
        """What they came to."""
        return table_of(self.data)


def make(
    setup: Setup,
    found: Mapping[str, xr.Dataset],
    dictionary: Dictionary | None,
    path: Path,
    progress: Progress,
) -> Made:
    """Have the analyses offer changes, write each as a file, and judge them all.

    Args:
        setup: of the case.
        found: the stages' results by name.
        dictionary: whose features were looked at.
        path: the run's folder.
        progress: called with (done, total, what).
    """
    offered = offers(setup, found, dictionary, part(progress, 0, OFFERING, WHOLE))
    names = [c.name for c in offered.changes]
    if len(set(names)) < len(names):
        raise UsageError(f"two changes have one name: {names}")
    seen = judged(setup, offered.changes, part(progress, OFFERING, WHOLE - OFFERING, WHOLE))
    painted = {c.name: c for c in offered.changes if c.name not in seen.failed}
    (path / CHANGES).mkdir(exist_ok=True)
    for change in painted.values():
        change.save(path / CHANGES)
    skipped = [*offered.skipped, *((name, why) for name, why in seen.failed.items())]
    told = {name: change.told for name, change in painted.items()}
    data = seen.data.assign_attrs(told=json.dumps(told), skipped=json.dumps(skipped))
    return Made(data, painted, seen.kept)


def read(data: xr.Dataset, path: Path, dictionary: Dictionary | None) -> Made:
    """Return the stage of a run that was finished before.

    Raises:
        FileNotFoundError: if a change's file is gone.
        ValueError: if one is damaged, or features are of another dictionary.
    """
    _check_whole(data)
    told = json.loads(data.attrs["told"])
    return Made(data, {name: _read(name, about, path, dictionary) for name, about in told.items()})


def table_of(data: xr.Dataset) -> Changes:
    """What changes came to, as the stage has it.

    Raises:
        ValueError: for a stage of an older version, which lacks what is told now.
    """
    _check_whole(data)
    told = json.loads(data.attrs["told"])
    return Changes(data, told, tuple((str(a), str(b)) for a, b in json.loads(data.attrs["skipped"])))


def _check_whole(data: xr.Dataset) -> None:
    lost = sorted({"hit", "fit", "colour", "kind", "depth"} - {str(v) for v in data.variables})
    if lost:
        raise UsageError(
            f"the changes of this run were tried by an older version, which did not tell {lost[0]}; to try "
            "them anew, investigate again"
        )


def _read(name: str, told: Mapping[str, Any], path: Path, dictionary: Dictionary | None) -> Change:
    file, kind = path / CHANGES / file_name(name), told["act"]["kind"]
    act: Edit | Acting
    if kind == "edit":
        act = Edit.load(file)
    elif kind == "steering":
        act = Steer.load(file)
    elif dictionary is None:
        raise UsageError(f"{name!r} pushes features of a dictionary; give it: dictionary=...")
    else:
        act = Push.load(file, dictionary)
    return Change(name, told["analysis"], told["why"], act, told["rows"])


def chosen_edit(made: Made, method: str | None) -> Edit | None:
    """The edit of weights that the page shows in full: by the method asked for, or the best one.

    Without a judge it is the first. None where no change is one of weights.
    """
    edits = {name: c.edit for name, c in made.changes.items() if c.edit is not None}
    named = [e for e in edits.values() if method is not None and e.note.get("method") == method]
    if named:
        return named[0]
    if not edits:
        return None
    return edits[next(name for name in made.table.ranked if name in edits)]
