"""The whole loop as one function: look, find the cause, change it, check it, write a page.

What is finished is on disk at once, so that a killed run goes on where it stopped.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from ..analysis.mediation.result import Mediation
from ..models.arguments import checked
from ..models.errors import UsageError
from ..models.judges.choosing import about_judge
from ..models.progress import Progress, showing
from ..models.store.fingerprint import fingerprint
from ..models.store.numerics import NUMERICS
from ..models.store.provenance import provenance
from ..report import page as report
from ..report.asked import cannot_paint, tell_refusal
from ..report.images import save_sheet
from .case import Case, Setup, prepare
from .folder import ORACLE, RunFolder, write_text
from .result import Investigation
from .stages.attack import attack
from .stages.change import checked_method, make_edit
from .stages.check import check
from .stages.denoiser_cause import denoiser_cause
from .stages.look import look
from .stages.oracle import oracle
from .stages.text_cause import text_cause


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
    """Do the whole loop and write a run folder: report.html, results.zarr, edit.safetensors, run.json.

    First the unedited model is asked outright for the source and the target: where it cannot paint them,
    there is nothing to find. A run that was stopped goes on where it was when it is called again with the
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
    if case.method is not None:
        checked_method(case.method)
    setup = prepare(case)
    settings = {
        **setup.settings,
        "weights": fingerprint(setup.model),
        "numerics": NUMERICS,
        "format": 2,
    }
    folder = RunFolder(Path(output), settings)
    with folder.writing(), showing(progress) as show:
        folder.open(fresh=fresh)
        stage = _Stages(folder, show)
        asked = stage("oracle", "asking outright for both words", lambda p: oracle(setup, p))
        if cannot_paint(asked) and not anyway:
            sheet = save_sheet(asked["pictures"], asked.sizes["seed"], folder.path / ORACLE)
            raise UsageError(tell_refusal(asked, str(sheet)))
        return _run(setup, folder, stage, command, asked)


def _run(setup: Setup, folder: RunFolder, stage: _Stages, command: str, asked: xr.Dataset) -> Investigation:
    found = {"oracle": asked}
    found["look"] = stage("look", "looking: pictures, word maps", lambda p: look(setup, p))
    found["text"] = stage("text", "finding the cause: text encoder", lambda p: text_cause(setup, p))
    found["denoiser"] = stage("denoiser", "finding the cause: denoiser", lambda p: denoiser_cause(setup, p))
    edit = make_edit(setup, Mediation(found["text"]), Mediation(found["denoiser"]))
    edit.save(folder.path / "edit.safetensors")
    found["effect"] = stage("effect", "checking the edit", lambda p: check(setup, edit, p))
    if setup.judge is not None:
        found["robustness"] = stage("robustness", "trying to get it back", lambda p: attack(setup, edit, p))
    about = {**provenance(setup.model), "edit": edit.id, "edited": dict(edit.note), "machine": machine()}
    about |= {"command": command, "seeds": setup.seeds, "guidance": setup.guidance}
    about |= {"why_method": setup.why_method} if setup.why_method else {}
    about |= {} if setup.judge is None else {"judge": about_judge(setup.judge)}
    about["parameters"] = sum(p.numel() for m in setup.model.components.values() for p in m.parameters())
    whole = folder.finish(about)
    page = folder.path / "report.html"
    write_text(page, report.render(found, whole, edit))
    return Investigation(folder.path)


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
