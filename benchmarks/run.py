"""Measure, print a table, and write it down: ``python benchmarks/run.py``.

Writes results.json and results.md beside this file, and puts the table into README.md between
``<!-- benchmarks -->`` and ``<!-- /benchmarks -->`` where these are. ``python benchmarks/run.py edit``
measures one part anew and leaves the others as they were.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import classification
import closed_form
import decoding
import guidance
import information
import pages
import steering
import studies
import sweeping
import text_solves
import torch
import tracing
import word_heat
from measure import Row
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
PARTS: dict[str, Callable[[], list[Row]]] = {
    "time": lambda: tracing.measure_time(rounds=9),
    "memory": lambda: tracing.measure_memory(rounds=3),
    "sweep": lambda: sweeping.measure(rounds=3),
    "studies": studies.measure,
    "edit": lambda: closed_form.measure(rounds=9),
    "dictionary": lambda: decoding.measure(rounds=5),
    "solves": lambda: text_solves.measure(rounds=1),
    "maps": lambda: word_heat.measure(rounds=3),
    "classes": classification.measure,
    "information": information.measure,
    "guidance": lambda: guidance.measure(rounds=5),
    "steering": lambda: steering.measure(rounds=3),
}
HEADER = ("what", "against", "measured", "target", "met", "how much")


def main() -> None:
    """Run all parts, or those named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", help=f"which to run, of {', '.join(PARTS)}; all without")
    names = parser.parse_args().parts or list(PARTS)
    if unknown := sorted(set(names) - set(PARTS)):
        parser.error(f"there is no part {unknown[0]!r}; there are {', '.join(PARTS)}")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    console = Console()
    found = _read()
    for name in names:
        with console.status(f"measuring {name} ..."):
            found[name] = PARTS[name]()
        found = {name: found[name] for name in PARTS if name in found}
        _write(found)  # now, lest it be lost with what comes after
    console.print(_table([row for name in names for row in found[name]]))


def _cells(row: Row) -> tuple[str, ...]:
    def number(x: float) -> str:
        return f"{x:.1e}" if row.unit else f"{x:.3f} x"

    target = "" if row.target is None else f"<= {number(row.target)}"
    met = {None: "", True: "yes", False: "no"}[row.met]
    return (row.what, row.baseline, number(row.value), target, met, row.note)


def _table(rows: list[Row]) -> Table:
    table = Table(*HEADER, title="Benchmarks: ratios to named baselines, measured in turns on this machine")
    for row in rows:
        table.add_row(*_cells(row), style={None: "", True: "green", False: "red"}[row.met])
    return table


def _read() -> dict[str, list[Row]]:
    path = HERE / "results.json"
    parts = json.loads(path.read_text())["parts"] if path.is_file() else {}
    return {
        name: [Row(**{k: v for k, v in r.items() if k != "met"}) for r in rows]
        for name, rows in parts.items()
    }


def _write(parts: dict[str, list[Row]]) -> None:
    about = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, one thread used",
        "versions": {p: version(p) for p in ("denoscope", "torch", "diffusers", "transformers")},
    }
    found = {"about": about, "parts": {name: [row.as_dict() for row in rows] for name, rows in parts.items()}}
    (HERE / "results.json").write_text(json.dumps(found, indent=1) + "\n")
    rows = [row for part in parts.values() for row in part]
    table = pages.table(HEADER, map(_cells, rows))
    versions = ", ".join(f"{k} {v}" for k, v in about["versions"].items())  # type: ignore[attr-defined]
    text = f"{table}\n\nCPU time, {about['machine']}; {versions}; medians of rounds measured in turns.\n"
    (HERE / "results.md").write_text(text)
    pages.write("README.md", "benchmarks", text)


if __name__ == "__main__":
    main()
