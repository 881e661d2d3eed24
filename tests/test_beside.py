"""What stands beside other tools: each has its task, what is written is counted, and what runs here runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import denoscope
from denoscope.models import zoo

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "benchmarks"))

import beside  # noqa: E402
import beside_checks  # noqa: E402

FACTS = beside.facts()
TOOLS = (
    "nnsight",
    *("DAAM", "UCE", "TIME", "ReFACT", "LocoGen", "DiffLens", "attribute-control", "sdxl-unbox"),
    *("ConceptAttention", "DreamReader", "eval-unlearn"),
)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "STEPS", 2)
    monkeypatch.setattr(beside, "ROUNDS", 1)


def task(name: str, folder: Path) -> SimpleNamespace:
    """A tool's task, in small."""
    found = beside.task_of(FACTS[name], folder)
    vars(found).update({k: v for k, v in (("updates", 4), ("captions", 20)) if hasattr(found, k)})
    return found


# what is known ----------------------------------------------------------------------------------------------


def test_every_tool_has_its_task_and_its_sources() -> None:
    assert tuple(FACTS) == TOOLS
    for name, fact in FACTS.items():
        assert {"does", "here", "task", "values", "read", "date", "asks", "opens", "cannot"} <= set(fact), (
            name
        )
        assert fact["read"], name
        assert fact["snippet"] in beside.NEEDS or "rows" in fact, f"{name}: neither run nor computed"


@pytest.mark.parametrize("side", ["here", "there"])
def test_every_snippet_is_one_of_a_tool(side: str) -> None:
    found = sorted(p for p in (beside.HOME / side).iterdir() if p.is_file())
    assert found == sorted(beside.place(side, fact) for fact in FACTS.values())


def test_the_page_tells_of_each_tool() -> None:
    page = (ROOT / "docs" / "beside.md").read_text()
    for name, fact in FACTS.items():
        there, here = beside.lines(fact)
        assert f"| {name} | {fact['here']} | {fact['task']} | {there} → {here} |" in page
        assert beside.limits(name, fact) in page


# what one writes --------------------------------------------------------------------------------------------


CODE = '''"""Two

lines."""

import a


def start(source, task):
    return a(
        source
    )


def own(x):
    return x
'''
SHELL = """# told

cat > a.csv <<'CSV'
old,new
1,2
CSV
python a.py \\
    --b
python - <<'PYTHON'
x = 1
PYTHON
"""


def test_lines_are_those_that_one_writes(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(CODE)
    assert beside.written(tmp_path / "a.py") == 1 + 3 + 2
    (tmp_path / "a.sh").write_text(SHELL)
    assert beside.written(tmp_path / "a.sh") == 2 + 2 + 1


def test_lines_of_their_files_that_have_to_be_changed_are_told_apart() -> None:
    there, here = beside.lines(FACTS["LocoGen"])
    assert there == "2 + 3 changed"
    assert here == str(beside.written(beside.place("here", FACTS["LocoGen"])))


def test_rows_are_arithmetic_on_the_task() -> None:
    fact = {"values": {"n": 3, "each": ["a", "b"]}, "rows": {"formula": "(layers + n) * each * steps"}}
    assert beside.arithmetic(fact, layers=10) == 13 * 2 * 2
    with pytest.raises(NameError, match="other"):
        beside.arithmetic({"values": {}, "rows": {"formula": "other"}}, 1)
    assert [beside.arithmetic(f, 10) for f in FACTS.values() if "rows" in f] == [0, 0, 0, 44, 16, 8, 8, 2, 28]


# what runs --------------------------------------------------------------------------------------------------

ROWS = {"nnsight": 8, "DAAM": 16, "DiffLens": 16, "sdxl-unbox": 8, "eval-unlearn": 8}
"""Rows of two steps, where nothing is shared and nothing looked up."""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TOOLS)
def test_what_is_written_here_runs(name: str, tmp_path: Path) -> None:
    small, module = task(name, tmp_path), beside.opened(beside.place("here", FACTS[name]))
    started = module.start("emoji", small)
    rows, made = beside.counted(lambda: module.work(started, small))
    assert rows == ROWS.get(name, rows)
    if name in ("UCE", "TIME", "ReFACT"):
        assert isinstance(made, denoscope.Edit)
        before = started.parameter(next(iter(made.deltas))).clone()
        module.use(started, small, made)
        assert not torch.equal(started.parameter(next(iter(made.deltas))), before)
    else:
        assert made is not None
        assert rows > 0


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with emoji as plain diffusers opens it."""
    there = tmp_path_factory.mktemp("beside")
    zoo.export("emoji", there / "emoji")
    return there


@pytest.mark.filterwarnings("ignore")
def test_nnsight_gives_the_same_to_the_bit(whole: Path) -> None:
    here, there = beside.measured(FACTS["nnsight"], whole, there=True)
    assert there is not None
    assert (here.rows, there.rows, there.apart) == (8, 8, 0.0)
    assert min(here.seconds, there.seconds) > 0


@pytest.mark.filterwarnings("ignore")
def test_eval_unlearn_paints_the_same(whole: Path) -> None:
    pytest.importorskip("eval_unlearn")
    here, there = beside.measured(FACTS["eval-unlearn"], whole, there=True)
    assert there is not None
    assert (here.rows, there.rows) == (8, 8)
    assert there.apart <= 1.01 / 255


def test_results_are_compared_as_numbers() -> None:
    assert beside.numbers(torch.ones(1, 2, 1)).tolist() == [1, 1]
    assert beside.numbers(SimpleNamespace(values=np.ones((1, 2)))).tolist() == [1, 1]
    assert beside.numbers([Image.new("RGB", (2, 2), "white")]).flatten().tolist() == [1] * 12


@pytest.fixture
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """Tasks that take no time, and whether each was to run on both sides."""
    asked: list[bool] = []

    def measured(fact: Any, folder: Path, there: bool) -> Any:
        asked.append(there)
        return beside.Measured(7, 1.0), beside.Measured(9, 2.0, apart=0.5) if there else None

    monkeypatch.setattr(beside, "measured", measured)
    monkeypatch.setattr(beside, "version", lambda package: "1.0")
    monkeypatch.setattr(beside, "KEPT", tmp_path / "kept.json")
    yield asked


def test_numbers_of_absent_packages_are_those_of_the_last_time(
    apart: list[bool], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    known = {name: FACTS[name] for name in ("DAAM", "UCE", "nnsight")}
    monkeypatch.setattr(beside, "runnable", lambda package: True)
    first = beside.all_measured(known, tmp_path)
    assert apart == [True, False, True]
    assert list(json.loads(beside.KEPT.read_text())) == [
        "DAAM"
    ]  # UCE cannot run, and nnsight is always there
    monkeypatch.setattr(beside, "runnable", lambda package: package == "nnsight")
    again = beside.all_measured(known, tmp_path)
    assert apart[3:] == [False, False, True]
    assert again == first
    assert again["DAAM"][0].when.startswith("daam 1.0, ")


def test_a_line_says_what_was_not_run() -> None:
    here = beside.Measured(3, 0.1234)
    cells = beside.line("UCE", FACTS["UCE"], here, None, 10)
    assert cells[-3:] == ("*0* → 3", "not run → 123 ms", "")
    there = beside.Measured(16, 2.04, "daam 1.0", 3e-7)
    cells = beside.line("DAAM", FACTS["DAAM"], beside.Measured(16, 1.0, "daam 1.0"), there, 10)
    assert cells[-3:] == ("16 → 16", "2.0 s → 1.0 s†", "3e-07")


# what the code of others goes by ----------------------------------------------------------------------------


def test_what_refact_puts_there_is_not_read_and_nothing_is_left_behind() -> None:
    pipe = denoscope.load("emoji").pipe
    before = set(dict(pipe.text_encoder.named_modules()))
    assert beside_checks.replaced(pipe).startswith("it does not: CLIPTextModel has no such part")
    assert set(dict(pipe.text_encoder.named_modules())) == before

    class Older(torch.nn.Module):
        """An encoder that has the part, as those of older versions."""

        def __init__(self) -> None:
            super().__init__()
            self.text_model = torch.nn.Linear(1, 1)

    encoder = Older()
    tower = encoder.text_model
    older = SimpleNamespace(
        text_encoder=encoder, encode_prompt=lambda *_, **__: [encoder.text_model(torch.ones(1))]
    )
    assert beside_checks.replaced(older) == "it does"
    assert encoder.text_model is tower


def test_tokens_are_not_spelled_as_the_prompt_is() -> None:
    pipe = denoscope.load("emoji").pipe
    assert (
        beside_checks.spelled(pipe, "A Cook")
        == beside_checks.spelled(pipe, "a cook")
        == "`a</w>`, `cook</w>`"
    )
