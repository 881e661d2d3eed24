"""What an investigation found: a folder, read when asked for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

import torch

from ..analysis.edit_evaluation.evaluate import EditEvaluation
from ..analysis.erasure.result import Robustness
from ..analysis.mediation.result import Mediation
from ..analysis.scores import load_store
from ..editing.edit import Edit
from ..models.drawn import Figure, figure
from ..models.html import panel, pictures, table


@dataclass(frozen=True)
class Investigation:
    """The result of ``investigate``; what it holds is read from its folder when asked for.

    Args:
        folder: with report.html, results.zarr, edit.safetensors and run.json.
    """

    folder: Path

    @property
    def page(self) -> Path:
        """The page; open it in any browser."""
        return self.folder / "report.html"

    @cached_property
    def edit(self) -> Edit:
        """The edit that was made."""
        return Edit.load(self.folder / "edit.safetensors")

    @cached_property
    def text(self) -> Mediation:
        """Which states of the text encoder carry the word."""
        return Mediation(self._stage("text"))

    @cached_property
    def denoiser(self) -> Mediation:
        """Which sites of the denoiser carry it, and when."""
        return Mediation(self._stage("denoiser"))

    @cached_property
    def evaluation(self) -> EditEvaluation:
        """What the edit did; its pictures are kept rounded, as a PNG holds them."""
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

    def plot(self) -> Figure:
        """Return the edited prompt before and after the edit, ``analysis.plots.before_after``."""
        before, after = (self.evaluation.images[state][0] for state in ("before", "after"))
        seeds = self.evaluation.data["seed"].values
        prompt = str(self.evaluation.data["prompt"].values[0])
        return figure("before_after", before, after, [f"{prompt}, seed {s}" for s in seeds])

    def __fspath__(self) -> str:
        return str(self.page)

    def __repr__(self) -> str:
        return f"Investigation({str(self.page)!r})"

    def _repr_html_(self) -> str:
        seeds = [f"seed {s}" for s in self.evaluation.data["seed"].values]
        shown = [pictures(self.evaluation.images[state][0], seeds) for state in ("before", "after")]
        frame = self.evaluation.summary()
        frame = frame[frame["state"] == "after"]
        where = f"<div>open <code>{escape(str(self.page))}</code> in a browser</div>"
        rows = frame[["kind", "measure", "mean", "low", "high"]].itertuples(index=False)
        return panel(repr(self.edit), *shown, table(["kind", "measure", "mean", "low", "high"], rows), where)

    def _stage(self, name: str) -> Any:
        return load_store(self.folder / "results.zarr" / name)
