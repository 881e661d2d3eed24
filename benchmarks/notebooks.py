"""Every notebook, run whole, as an .ipynb with its figures: ``python benchmarks/notebooks.py 01 --quick``.

Each lies under --output, beside a folder with the files that it made. Tells name and seconds as it goes. One
that fails shows the cell and its error, and keeps what it showed until then; the others run all the same, and
the exit status is 1. ``make notebooks`` runs all of them.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from pages import ROOT

SOURCES = ROOT / "notebooks"


def chosen(names: Sequence[str]) -> list[Path]:
    """The notebooks whose names begin so; all if there are no names.

    Raises:
        SystemExit: no notebook's name begins like one of them.
    """
    every = sorted(SOURCES.glob("*.py"))
    for name in names:
        if not any(path.name.startswith(name) for path in every):
            known = ", ".join(path.stem for path in every)
            raise SystemExit(f"no notebook's name begins with {name!r}; there are {known}")
    return [path for path in every if not names or path.name.startswith(tuple(names))]


def execute(source: Path, output: Path) -> str | None:
    """Run one in an empty folder, and write it with what it shows; returns the failing cell and its error."""
    notebook, folder = jupytext.read(source), output / source.stem
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    begun: list[Any] = []
    client = NotebookClient(
        notebook,
        timeout=None,
        resources={"metadata": {"path": str(folder)}},
        on_cell_start=lambda cell, **_: begun.append(cell),
    )
    failed = None
    try:
        client.execute()
    except CellExecutionError as error:
        failed = str(error)  # the cell, and the traceback
    except DeadKernelError as error:
        failed = f"{begun[-1].source if begun else source.name}\n\n{error}"
    nbformat.write(notebook, output / f"{source.stem}.ipynb")
    if not any(folder.iterdir()):
        folder.rmdir()
    return failed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run those that are named, or all; 1 if one of them fails."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="name", help="how its file name begins; all if left out")
    parser.add_argument("--quick", action="store_true", help="as small as in the tests")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "notebooks")
    options = parser.parse_args(arguments)
    # kernels take it over; a bar that has ended has no place in a file
    os.environ |= {"DENOSCOPE_QUICK": "1" if options.quick else "", "TQDM_DISABLE": "1"}
    failures = []
    for source in chosen(options.names):
        start = time.perf_counter()
        failed = execute(source, options.output.resolve())
        seconds = f"{time.perf_counter() - start:.0f} s"
        if failed is None:
            print(f"{source.stem}: {seconds}", flush=True)
        else:
            failures.append(source.stem)
            print(f"{source.stem}: FAILED, {seconds}\n{failed}", flush=True)
    if failures:
        print(f"failed: {', '.join(failures)}")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
