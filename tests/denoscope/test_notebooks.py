"""The notebooks run, top to bottom, and show figures."""

from __future__ import annotations

import sys
from pathlib import Path

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))

import notebooks  # noqa: E402

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))
FIGURES = {
    "01_first_look.py": 4,
    "02_edit_three_ways.py": 4,
    "03_what_each_word_does.py": 4,
    "04_a_direction.py": 3,
    "05_a_bias_found.py": 1,
    "06_one_investigation.py": 2,
    "07_a_long_study.py": 2,
}
CASES = [pytest.param(path, id=path.stem) for path in NOTEBOOKS]


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


BROKEN = """\
# %%
open("kept.txt", "w").write("left behind")
print("shown before")

# %%
1 / 0  # here

# %%
print("never")
"""
WHOLE = """\
# %%
import os
print("quick:", os.environ["DENOSCOPE_QUICK"] or "no")
"""
DEAD = """\
# %%
import os
os._exit(3)
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_notebooks_are_written_and_one_that_fails_stops_no_other(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(notebooks, "SOURCES", tmp_path)
    for name in ("DENOSCOPE_QUICK", "TQDM_DISABLE"):
        monkeypatch.setenv(name, "1")  # and back, afterwards
    (tmp_path / "1_broken.py").write_text(BROKEN)
    (tmp_path / "2_dead.py").write_text(DEAD)
    (tmp_path / "3_whole.py").write_text(WHOLE)
    output = tmp_path / "out"
    assert notebooks.main(["--output", str(output)]) == 1
    told = capsys.readouterr().out
    assert "1_broken: FAILED, " in told and "1 / 0  # here" in told and "ZeroDivisionError" in told
    assert "2_dead: FAILED, " in told and "os._exit(3)" in told and "3_whole: " in told
    assert told.endswith("failed: 1_broken, 2_dead\n")
    broken, whole = (nbformat.read(output / name, 4) for name in ("1_broken.ipynb", "3_whole.ipynb"))
    assert [bool(cell.outputs) for cell in broken.cells] == [True, True, False]
    assert whole.cells[0].outputs[0].text == "quick: no\n"
    assert sorted(p.name for p in output.iterdir() if p.is_dir()) == ["1_broken"]  # it wrote something
    assert notebooks.main(["3", "--quick", "--output", str(output)]) == 0
    assert nbformat.read(output / "3_whole.ipynb", 4).cells[0].outputs[0].text == "quick: 1\n"


def test_a_name_that_no_notebook_has_is_told():
    assert notebooks.chosen(["07", "01_first"]) == [NOTEBOOKS[0], NOTEBOOKS[6]]
    with pytest.raises(SystemExit, match="no notebook's name begins with '99'; there are 01_first_look, "):
        notebooks.chosen(["07", "99"])
