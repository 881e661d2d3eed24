"""What an investigation found: a folder, read when asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from ..analysis.edit_evaluation.evaluate import EditEvaluation
from ..analysis.erasure.result import Robustness
from ..analysis.mediation.result import Mediation
from ..analysis.scores import load_store
from ..editing.edit import Edit
from ..models.base import Model
from ..models.drawn import Figure, figure
from ..models.errors import FileInTheWayError, MissingFileError, NotFoundError, UsageError
from ..models.html import panel, pictures, table
from ..models.load import load
from ..models.opening.placing import placing
from ..models.store.fingerprint import fingerprint
from ..models.suggest import near
from ..report.widgets import WithPage

if TYPE_CHECKING:
    from ..report.changes import Changes
    from ..report.findings import Finding
    from .changes.change import Change
    from .changes.making import Made

STAGES = ("oracle", "look", "text", "denoiser", "information", "features", "changes", "effect", "robustness")


@dataclass(frozen=True)
class Investigation(WithPage):
    """The result of ``investigate``; what it holds is read from its folder when asked for.

    Args:
        folder: with report.html, results.zarr, changes/, edit.safetensors and run.json.
    """

    folder: Path

    @property
    def page(self) -> Path:
        """The page; open it in any browser."""
        return self.folder / "report.html"

    def _as_page(self) -> tuple[str, str, str]:
        return self.page.read_text(), "The investigation", f"{self.page}, in any browser,"

    @cached_property
    def edit(self) -> Edit:
        """The edit of weights that the page shows in full: the best one, or by the method asked for.

        Raises:
            FileNotFoundError: if no change of the goal was one of weights.
        """
        return Edit.load(self.folder / "edit.safetensors")

    @cached_property
    def text(self) -> Mediation:
        """Which states of the text encoder carry the word.

        Raises:
            FileNotFoundError: if mediation was none of the analyses; so for ``denoiser``.
        """
        return Mediation(self._stage("text"))

    @cached_property
    def denoiser(self) -> Mediation:
        """Which sites of the denoiser carry it, and when."""
        return Mediation(self._stage("denoiser"))

    @cached_property
    def evaluation(self) -> EditEvaluation:
        """What the edit did; its pictures are kept rounded, as a PNG holds them.

        Raises:
            FileNotFoundError: for a goal that has no one word to check for (remove, balance).
        """
        data = self._stage("effect")
        shape = (data.sizes["evaluation_prompt"], data.sizes["seed"])
        images = {
            state: torch.from_numpy(data[state].values).permute(0, 3, 1, 2).unflatten(0, shape) / 255
            for state in ("before", "after", "oracle")
        }
        return EditEvaluation(data, images)

    @cached_property
    def robustness(self) -> Robustness:
        """What still comes when somebody tries; there is none where there was no judge.

        Raises:
            FileNotFoundError: if there was none, or the run is of a version that did not try.
        """
        return Robustness(self._stage("robustness"))

    @property
    def findings(self) -> list[Finding]:
        """The sentences of the page, each with whether these runs can settle it."""
        from ..report.page import findings  # noqa: PLC0415  # the page is a heavy import

        found = {n: self._stage(n) for n in STAGES if (self.folder / "results.zarr" / n).is_dir()}
        edit = self.edit if (self.folder / "edit.safetensors").is_file() else None
        return findings(found, self._whole, edit, self.table)

    @cached_property
    def table(self) -> Changes:
        """What all changes came to, side by side; ``to_frame()`` is its rows."""
        from .changes.making import table_of  # noqa: PLC0415  # the analyses are heavy imports

        return table_of(self._stage("changes"))

    @property
    def changes(self) -> dict[str, Change]:
        """Every change that was offered, by name.

        Raises:
            FileNotFoundError: if the file of one is gone.
        """
        return dict(self._made.changes)

    @property
    def best(self) -> str | None:
        """Name of the best change; ``table.why`` says why. None where nobody judged, or none helps."""
        return self.table.best

    def to_frame(self) -> pd.DataFrame:
        """Return a row for each change, with intervals; see ``Changes.to_frame``."""
        return self.table.to_frame()

    @contextmanager
    def apply(self, change: str | None = None, model: Model | None = None) -> Iterator[Model]:
        """Put a change on a model for the length of a with block; the model is afterwards as before.

        Args:
            change: its name; None is the best one.
            model: the model of the investigation, opened already; None opens it.

        Yields:
            The changed model.

        Raises:
            LookupError: for another name.
            ValueError: for no best change, and for another model.
        """
        chosen = self._change(change)
        opened = self._opened() if model is None else model
        if fingerprint(opened) != self._whole["settings"]["weights"]:
            raise UsageError(
                f"{opened.name} has other weights now than the model that was investigated (another one, or "
                "edited since); a change is for those weights: take edits off, or investigate anew"
            )
        with chosen.applied(opened):
            yield opened

    def export(self, path: str | Path, change: str | None = None) -> Path:
        """Write a change for use elsewhere: a file ``.safetensors``, or a folder for plain diffusers.

        Args:
            path: the file (of an edit, a direction or features), or the folder of a whole pipeline.
            change: its name; None is the best one.

        Raises:
            LookupError: for another name.
            ValueError: for no best change, and a folder for what acts while the model runs.
            FileExistsError: if there is something under that path.
        """
        from ..editing.export import pipeline  # noqa: PLC0415  # diffusers

        chosen, target = self._change(change), Path(path)
        if target.suffix == ".safetensors":
            if target.exists():
                raise FileInTheWayError(f"{target} exists; name another file, or delete it")
            target.parent.mkdir(parents=True, exist_ok=True)
            chosen.act.save(target)
            return target
        if chosen.edit is None:
            frozen = [n for n, c in self.changes.items() if c.edit is not None]
            raise UsageError(
                f"{chosen.name!r} acts while the model runs, so no weights hold it; export it as a file "
                f"(NAME.safetensors), or a change of weights: {', '.join(map(repr, frozen)) or 'none'}"
            )
        made: Path = pipeline(self._opened(), chosen.edit, target)
        return made

    def plot(self) -> Figure:
        """Return the prompt before and after the change, ``analysis.plots.before_after``."""
        data = self.table.data
        after = self.best or (self.table.names[0] if self.table.names else str(data["change"].values[0]))
        first, second = (data["pictures"].sel(change=n, drop=True) for n in ("nothing done", after))
        names = [f"{data['text'].values[0]}, seed {s}" for s in data["seed"].values]
        return figure("before_after", first[: len(names)], second[: len(names)], names)

    def __fspath__(self) -> str:
        return str(self.page)

    def __repr__(self) -> str:
        return f"Investigation({str(self.page)!r})"

    def _repr_html_(self) -> str:
        data, seeds = self.table.data, [f"seed {s}" for s in self.table.data["seed"].values]
        shown = []
        for name in dict.fromkeys(["nothing done", self.best or "nothing done"]):
            images = torch.from_numpy(data["pictures"].sel(change=name).values[: len(seeds)])
            shown.append(f"<div>{escape(name)}</div>{pictures(images.movedim(-1, 1) / 255, seeds)}")
        columns = ["change", "analysis", "efficacy", "specificity", "where"]
        rows = self.to_frame()[columns].itertuples(index=False)
        where = f"<div>open <code>{escape(str(self.page))}</code> in a browser</div>"
        why = f"<div>{escape(self.table.why)}</div>"
        return panel(self.table.goal_said, *shown, table(columns, rows), why, where)

    def _opened(self) -> Model:
        """The model that was investigated, opened as it was."""
        asked = self._whole["settings"]
        return load(str(asked["model"]), **placing(str(asked["device"]), str(asked["dtype"])))

    @property
    def _whole(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "run.json").read_text())
        return found

    @cached_property
    def _made(self) -> Made:
        from ..probes.dictionary import Dictionary  # noqa: PLC0415  # a heavy import
        from .changes.making import read  # noqa: PLC0415  # the analyses are heavy imports

        named = self._whole["settings"].get("dictionary_file")
        return read(self._stage("changes"), self.folder, Dictionary.load(named) if named else None)

    def _change(self, name: str | None) -> Change:
        chosen = self.best if name is None else name
        if chosen is None:
            raise UsageError(f"{self.table.why} Name the change that is meant: {', '.join(self.table.names)}")
        if chosen not in self.changes:
            raise NotFoundError(f"there is no change {chosen!r}; {near(chosen, self.changes)}")
        return self.changes[chosen]

    def _stage(self, name: str) -> Any:
        path = self.folder / "results.zarr" / name
        if not path.is_dir():
            raise MissingFileError(f"{self.folder} holds no {name}: that part was not asked for, or not made")
        return load_store(path)
