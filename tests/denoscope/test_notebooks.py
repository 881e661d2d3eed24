"""The notebooks run, top to bottom, and show figures."""

from __future__ import annotations

from pathlib import Path

import jupytext
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.py"))
FIGURES = {
    "01_first_look.py": 4,
    "02_edit_three_ways.py": 4,
    "03_what_each_word_does.py": 4,
    "04_a_direction.py": 3,
    "05_a_bias_found.py": 1,
    "06_one_investigation.py": 2,
}
LONG = {"05_a_bias_found.py": pytest.mark.stress}
CASES = [pytest.param(path, id=path.stem, marks=LONG.get(path.name, ())) for path in NOTEBOOKS]


def test_there_are_notebooks():
    assert [p.name for p in NOTEBOOKS] == list(FIGURES)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the notebook's machinery, in another process
@pytest.mark.parametrize("path", CASES)
def test_a_notebook_runs(path, tmp_path, monkeypatch):
    monkeypatch.setenv("DENOSCOPE_QUICK", "1")
    notebook = jupytext.read(path)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [
        kind for cell in notebook.cells for out in cell.get("outputs", []) for kind in out.get("data", {})
    ]
    assert shown.count("application/vnd.plotly.v1+json") == FIGURES[path.name]
