"""What a benchmark found: tables, which go to JSON and Parquet."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from ..models.arguments import checked
from ..models.drawn import Figure, figure
from ..models.errors import MissingFileError, StateError, UsageError
from ..models.html import frame_table, panel
from ..models.store.canonical import json_hash
from ..models.store.disk import write_bytes
from .summing import summed

_STATES = ("before", "after", "oracle")
CELLS = (
    "method",
    "concept",
    "kind",
    "reason",
    "seconds",
    "weights",
    "share",
    "kid",
    *(f"{n}_{s}" for n in ("efficacy", "generality", "neighbours", "bystanders") for s in _STATES),
    "fit_still_before",
    "fit_still_after",
    "drift",
)
"""One edit each; ``reason`` says why there is none."""
PICTURES = (
    "method", "concept", "kind", "aim", "prompt", "wanted", "seed",
    *(f"{n}_{s}" for s in _STATES for n in ("shown", "fit")),
    "moved",
)  # fmt: skip
"""One picture each."""
MANY = (
    "method", "edits", "order", "reason", "made", "seconds", "kid",
    "efficacy_before", "efficacy_after", "efficacy_oracle",
    "neighbours_before", "neighbours_after", "bystanders_before", "bystanders_after", "drift",
)  # fmt: skip
"""Many edits beside each other."""
DISTANCES = ("method", "pictures", "fid", "kid")
FRAMES = ("cells", "pictures", "many", "distances")
RESULTS = "results.json"


@dataclass(frozen=True, eq=False)
class Strip:
    """Pictures of one text and one seed: unedited, asked outright, after each method.

    Args:
        concept: name of the concept.
        prompt: the text.
        wanted: what should be seen after the edit.
        pictures: name -> [3, height, width] bytes.
    """

    concept: str
    prompt: str
    wanted: str
    pictures: dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class EditBenchmark:
    """The result of ``denoscope.bench.edits``.

    Args:
        about: model, weights, settings, judge, versions; JSON.
        cells: one row for each method and concept; ``reason`` says why there is no edit.
        pictures: one row for each picture that was judged.
        many: one row for each lot of edits beside each other.
        distances: FID and KID of all pictures of a method from what the unedited model paints when it is
            asked outright.
        strips: pictures for the page; none in one that was loaded.
    """

    about: Mapping[str, Any]
    cells: pd.DataFrame
    pictures: pd.DataFrame
    many: pd.DataFrame
    distances: pd.DataFrame
    strips: tuple[Strip, ...] = field(default=(), repr=False)
    _summed: dict[float, pd.DataFrame] = field(default_factory=dict, init=False, repr=False)

    def __repr__(self) -> str:
        done, n = int(self.cells["reason"].isna().sum()), len(self.cells)
        what = f"{self.cells['method'].nunique()} methods x {self.cells['concept'].nunique()} concepts"
        return f"EditBenchmark({self.about.get('model')}: {what}, {done} of {n} edits made)"

    def _repr_html_(self) -> str:
        frame = self.summary()
        return panel(repr(self), frame_table(frame))

    @checked
    def summary(self, level: float = 0.95) -> pd.DataFrame:
        """Return a table: for each method and measure the mean with a confidence interval.

        Columns: method, measure (efficacy, generality and its parts, neighbours, bystanders, fit, drift),
        state (before, after, oracle), mean, low, high, concepts. Concepts and seeds are random samples
        (``denoscope.analysis.intervals``). A method's numbers are of the concepts that it takes.
        """
        if level not in self._summed:
            self._summed[level] = summed(self.pictures, level)
        return self._summed[level].copy()

    @checked
    def to_frame(self, level: float = 0.95) -> pd.DataFrame:
        """Return the ``summary``."""
        return self.summary(level)

    def plot(self) -> Figure:
        """Return efficacy against specificity, with intervals, ``analysis.plots.trade_off``."""
        return figure("trade_off", self.summary())

    def to_json(self) -> str:
        """All tables and where they come from, as JSON."""
        frames = {n: json.loads(getattr(self, n).to_json(orient="split", index=False)) for n in FRAMES}
        summary = json.loads(self.summary().to_json(orient="records"))
        return json.dumps({"about": dict(self.about), "summary": summary, **frames}, ensure_ascii=False)

    @checked
    def to_parquet(self, folder: str | Path) -> list[Path]:
        """Write cells, pictures and many edits as Parquet files, each whole or not at all; return the paths.

        Raises:
            RuntimeError: without pyarrow; the message says what to install.
            OSError: if they cannot be written.
        """
        if not has_parquet():
            raise StateError(
                "Parquet files need pyarrow, which is not there: pip install 'denoscope[tables]'"
            )
        files = []
        for name in ("cells", "pictures", "many"):
            buffer = io.BytesIO()
            getattr(self, name).to_parquet(buffer, index=False)
            write_bytes(Path(folder) / f"{name}.parquet", buffer.getvalue())
            files.append(Path(folder) / f"{name}.parquet")
        return files

    @checked
    def save(self, folder: str | Path) -> Path:
        """Write results.json, and Parquet files where pyarrow is there; return the first one's path.

        Raises:
            OSError: if they cannot be written.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        told = json.loads(self.to_json())
        write_bytes(folder / RESULTS, json.dumps({**told, "sha256": json_hash(told)}, indent=1).encode())
        if has_parquet():
            self.to_parquet(folder)
        return folder / RESULTS

    @classmethod
    @checked
    def load(cls, folder: str | Path) -> EditBenchmark:
        """Read what ``save`` wrote; without pictures.

        Raises:
            FileNotFoundError: if it is not there.
            ValueError: if it is damaged, or something else.
        """
        file = Path(folder) / RESULTS
        if not file.is_file():
            raise MissingFileError(
                f"there is no {RESULTS} in {str(folder)!r}; denoscope.bench.edits writes it"
            )
        try:
            told = json.loads(file.read_bytes())
            said = told.pop("sha256")
            whole = said == json_hash(told)
        except (ValueError, KeyError, TypeError, AttributeError):
            whole = False
        if not whole:
            raise UsageError(
                f"{file} is not what was written; run the benchmark again, it goes on from its folder"
            )
        frames = {n: pd.DataFrame(told[n]["data"], columns=told[n]["columns"]) for n in FRAMES}
        return cls(told["about"], **frames)


def has_parquet() -> bool:
    """Whether Parquet files can be written."""
    return find_spec("pyarrow") is not None
