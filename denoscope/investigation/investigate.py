"""The whole loop as one function: look, find the cause, change it, check it, write a page.

What is finished is on disk at once, so that a killed run goes on where it stopped.
"""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from ..editing.edit import Edit
from ..models.arguments import checked
from ..models.errors import MissingFileError, StateError, UsageError
from ..models.judges.choosing import about_judge
from ..models.progress import Progress, showing
from ..models.store.fingerprint import fingerprint
from ..models.store.numerics import NUMERICS
from ..models.store.provenance import provenance
from ..probes.dictionary import Dictionary
from ..report import page as report
from ..report.asked import cannot_paint, tell_refusal
from ..report.images import save_sheet
from .case import Case, Setup, prepare
from .changes.by_mediation import NOBODY
from .changes.making import Made, chosen_edit
from .changes.making import make as make_changes
from .changes.making import read as read_changes
from .folder import ORACLE, TABLE, RunFolder, write_text
from .result import Investigation
from .stages.attack import attack
from .stages.change import checked_method
from .stages.check import check
from .stages.denoiser_cause import denoiser_cause
from .stages.features import features
from .stages.information import information
from .stages.look import look
from .stages.oracle import oracle
from .stages.text_cause import text_cause

log = logging.getLogger("denoscope")


@checked
def investigate(
    case: Case,
    output: str | Path,
    *,
    command: str = "",
    fresh: bool = False,
    anyway: bool = False,
    progress: Progress | None = None,
) -> Investigation:
    """Do the whole loop and write a run folder: page, numbers, changes, the best edit, settings.

    Each analysis that is asked for says what it found, and offers changes of the model that follow from it;
    all of them are tried on the same prompts and seeds. First the unedited model is asked outright for the
    source and the target: where it cannot paint them, there is nothing to find. A run that was stopped goes
    on where it was when it is called again with the
    same case and folder.

    Args:
        case: what is asked.
        output: the run folder.
        command: how the page says it was made.
        fresh: take away a run with other settings that the folder holds, instead of refusing.
        anyway: go on where the model cannot paint what is asked for.
        progress: called with (done, total, stage); without it a bar comes by itself.

    Returns:
        What was found; it shows itself in a notebook, and ``found.page`` is the path of the page.

    Raises:
        LookupError: for an unknown model, or a word that is not in the prompt.
        ValueError: for runs that cannot be made, and for words that the model cannot paint; their
            pictures are in the folder then, as ``oracle.png``.
        OSError: if the folder cannot be written, or holds another run.
        RuntimeError: if another process is writing to the folder; the message says which.

    Example::

        from denoscope.investigation import Case

        case = Case("a noto emoji of a woman firefighter", "firefighter", "cook")
        found = denoscope.investigate(case, "firefighter-to-cook")
    """
    return investigated(ready(case), output, command=command, fresh=fresh, anyway=anyway, progress=progress)


def ready(case: Case) -> Setup:
    """Open a case's model, and find what cannot be done before any work; errors as ``investigate``'s."""
    if case.method is not None:
        checked_method(case.method)
    return prepare(case)


def investigated(
    setup: Setup,
    output: str | Path,
    *,
    command: str = "",
    fresh: bool = False,
    anyway: bool = False,
    progress: Progress | None = None,
) -> Investigation:
    """Do it for a case that is ready; arguments and errors as ``investigate``'s."""
    dictionary = None if setup.case.dictionary is None else Dictionary.load(setup.case.dictionary)
    if dictionary is not None:
        dictionary.check(setup.model)
    settings = {
        **setup.settings,
        **({} if dictionary is None else {"dictionary": dictionary.digest}),
        "weights": fingerprint(setup.model),
        "numerics": NUMERICS,
        "format": 3,
    }
    folder = RunFolder(Path(output), settings)
    with folder.writing(), showing(progress) as show:
        folder.open(fresh=fresh)
        stage = _Stages(folder, show)
        asked = stage("oracle", "asking outright for both words", lambda p: oracle(setup, p))
        if cannot_paint(asked) and not anyway:
            sheet = save_sheet(asked["pictures"], asked.sizes["seed"], folder.path / ORACLE)
            raise UsageError(tell_refusal(asked, str(sheet)))
        return _run(setup, stage, command, asked, dictionary)


def _run(
    setup: Setup, stage: _Stages, command: str, asked: xr.Dataset, dictionary: Dictionary | None
) -> Investigation:
    folder, found = stage.folder, {"oracle": asked}
    found |= _looked(setup, stage, dictionary)
    made = _changed(setup, stage, found, dictionary)
    found["changes"] = made.data
    edit = chosen_edit(made, setup.case.method)
    if setup.case.method is not None and (edit is None or edit.note.get("method") != setup.case.method):
        whys = [why for by, why in made.table.skipped if by in (NOBODY, "mediation")]
        log.warning("no edit by %s could be made: %s", setup.case.method, "; ".join(whys) or "see the page")
    if edit is not None:
        edit.save(folder.path / "edit.safetensors")
    if edit is not None and setup.goal.kind in {"change_to", "steer"}:
        kept = None if made.kept is None or made.changes[made.kept[0]].edit != edit else made.kept[1]
        found["effect"] = stage("effect", "checking the edit", lambda p: check(setup, edit, p, kept))
        if setup.judge is not None:
            found["robustness"] = stage(
                "robustness", "trying to get it back", lambda p: attack(setup, edit, p)
            )
    with suppress(StateError):  # without pyarrow
        made.table.to_parquet(folder.path / TABLE)
    whole = folder.finish(_about(setup, edit, command))
    page = folder.path / "report.html"
    write_text(page, report.render(found, whole, edit, made.table))
    return Investigation(folder.path)


def _looked(setup: Setup, stage: _Stages, dictionary: Dictionary | None) -> dict[str, xr.Dataset]:
    """What each analysis found."""
    found = {"look": stage("look", "looking: pictures, word maps", lambda p: look(setup, p))}
    analyses = setup.case.looked_by
    if "mediation" in analyses:
        found["text"] = stage("text", "finding the cause: text encoder", lambda p: text_cause(setup, p))
        found["denoiser"] = stage(
            "denoiser", "finding the cause: denoiser", lambda p: denoiser_cause(setup, p)
        )
    if "information" in analyses:
        found["information"] = stage("information", "what words tell", lambda p: information(setup, p))
    if dictionary is not None:
        found["features"] = stage(
            "features", "which features tell it", lambda p: features(setup, dictionary, p)
        )
    return found


def _changed(
    setup: Setup, stage: _Stages, found: Mapping[str, xr.Dataset], dictionary: Dictionary | None
) -> Made:
    """The changes, made and judged; or those of a run before."""
    path, label, made = stage.folder.path, "trying what was found", list[Made]()

    def make(progress: Progress) -> xr.Dataset:
        made.append(make_changes(setup, found, dictionary, path, progress))
        return made[0].data

    data = stage("changes", label, make)
    if made:
        return made[0]
    try:
        return read_changes(data, path, dictionary)
    except (MissingFileError, UsageError) as error:
        log.warning("%s. The changes are made again", error)
        stage.folder.forget("changes")
        stage("changes", label, make)
        return made[0]


def _about(setup: Setup, edit: Edit | None, command: str) -> dict[str, Any]:
    about = {**provenance(setup.model), "machine": machine()}
    about |= {} if edit is None else {"edit": edit.id, "edited": dict(edit.note)}
    about |= {"command": command, "seeds": setup.seeds, "guidance": setup.guidance}
    about |= {"why_method": setup.why_method} if setup.why_method else {}
    about |= {} if setup.judge is None else {"judge": about_judge(setup.judge)}
    about["parameters"] = sum(p.numel() for m in setup.model.components.values() for p in m.parameters())
    return about


@dataclass(frozen=True)
class _Stages:
    """Makes a stage, or finds it made."""

    folder: RunFolder
    show: Progress

    def __call__(self, name: str, label: str, make: Callable[[Progress], xr.Dataset]) -> xr.Dataset:
        done = self.folder.load(name)
        if done is not None:
            self.show(1, 1, label)
            return done
        start, total = time.perf_counter(), 1

        def tell(n: int, of: int, _: str, /) -> None:
            nonlocal total
            total = of
            self.show(n, of, label)

        self.show(0, 1, label)
        made = make(tell)
        self.folder.save(name, made, time.perf_counter() - start)
        self.show(total, total, label)
        return made


def machine() -> dict[str, Any]:
    """Return what the numbers were computed on."""
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
    }
