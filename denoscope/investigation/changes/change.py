"""One change of a model: edited weights, or what acts while it runs; a value that is applied and saved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ...editing.edit import Edit
from ...models.base import Model
from ...probes.intervene import Intervention, intervening
from ...report.changes import WHILE_RUNNING


class Acting(Protocol):
    """What acts while a model runs: a direction or features with their strength."""

    @property
    def interventions(self) -> tuple[Intervention, ...]:
        """What is done where."""

    @property
    def told(self) -> Mapping[str, Any]:
        """What it is, as JSON."""

    def save(self, path: Path) -> None:
        """Write one file."""


@dataclass(frozen=True, eq=False)
class Change:
    """What an analysis offers.

    Args:
        name: in a few words, each once in an investigation.
        analysis: which offers it.
        why: the finding behind it, in a sentence.
        act: an edit of weights, or what acts while the model runs.
        rows: rows of the denoiser that it took beside the analysis itself: its fit and calibration.
    """

    name: str
    analysis: str
    why: str
    act: Edit | Acting
    rows: int = 0

    @property
    def edit(self) -> Edit | None:
        """The edit of weights; None of what acts while the model runs."""
        return self.act if isinstance(self.act, Edit) else None

    @property
    def where(self) -> str:
        """In which components weights change: "text_encoder", "unet" ...; or that none do."""
        if not isinstance(self.act, Edit):
            return WHILE_RUNNING
        return ", ".join(sorted({name.split(".")[0] for name in self.act.deltas}))

    @property
    def size(self) -> int:
        """How many numbers of the model are touched."""
        return self.act.size() if isinstance(self.act, Edit) else 0

    def applied(self, model: Model) -> AbstractContextManager[Any]:
        """Change the model for the length of a with block; it is as before afterwards, error or not."""
        if isinstance(self.act, Edit):
            return self.act.applied(model)
        return _acting(model, self.act.interventions)

    def save(self, folder: Path) -> Path:
        """Write it into a folder, under its name; return the file."""
        path = folder / file_name(self.name)
        self.act.save(path)
        return path

    @property
    def told(self) -> dict[str, Any]:
        """What it is, as JSON."""
        kind = {"kind": "edit", "method": self.act.note["method"]} if isinstance(self.act, Edit) else {}
        own = kind or dict(self.act.told)  # type: ignore[union-attr]
        told = {"name": self.name, "analysis": self.analysis, "why": self.why, "rows": self.rows}
        return {**told, "where": self.where, "size": self.size, "act": own}


@contextmanager
def _acting(model: Model, interventions: tuple[Intervention, ...]) -> Iterator[None]:
    with intervening(model, *interventions):
        yield


def file_name(name: str) -> str:
    """The file of a change.

    >>> file_name("quickfix of the self-attention of layer 0")
    'quickfix-of-the-self-attention-of-layer-0.safetensors'
    """
    return "".join(c if c.isalnum() or c in "._" else "-" for c in name.lower()) + ".safetensors"
