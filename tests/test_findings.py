"""Numbers in pages are written by commands: every pair of markers has one, every command its pair."""

import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "benchmarks"))

import pages  # noqa: E402
import rehearse  # noqa: E402

PAGES = sorted([
    ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "probes").rglob("*.md")
])  # fmt: skip
PAGE = re.compile(r'^PAGE = "(.+)"$', re.MULTILINE)
WRITES = re.compile(r'\bwrite\((?:PAGE|"(?P<page>[^"]+)"), "(?P<name>[^"]+)"')


def written() -> list[tuple[str, str]]:
    """Page and name of every part that a command writes."""
    found = []
    for path in sorted((ROOT / "benchmarks").glob("*.py")):
        text = path.read_text()
        own = PAGE.search(text)
        found += [(m["page"] or (own[1] if own else ""), m["name"]) for m in WRITES.finditer(text)]
    return found


def marked() -> list[tuple[str, str]]:
    """Page and name of every pair of markers."""
    return [
        (str(path.relative_to(ROOT)), name)
        for path in PAGES
        for name in re.findall(r"^<!-- ([\w-]+) -->$", path.read_text(), re.MULTILINE)
    ]


def test_every_pair_of_markers_is_written_by_one_command() -> None:
    assert len(written()) > 8
    assert sorted(written()) == sorted(marked())


def test_what_is_written_stands_between_the_markers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    (tmp_path / "page.md").write_text("a\n<!-- x -->\nold\n<!-- /x -->\nb\n<!-- y -->\n<!-- /y -->\n")
    pages.write("page.md", "x", pages.table(("n",), [("1 \\ 2",)]))
    assert (tmp_path / "page.md").read_text() == (
        "a\n<!-- x -->\n| n |\n| --- |\n| 1 \\ 2 |\n<!-- /x -->\nb\n<!-- y -->\n<!-- /y -->\n"
    )
    with pytest.raises(SystemExit, match="page.md has the markers <!-- z -->.* 0 times"):
        pages.write("page.md", "z", "new")


def test_a_mean_is_printed_with_its_interval() -> None:
    assert pages.bounds({"mean": -0.001, "low": -0.2, "high": 1.234}) == "0.00 [-0.20, 1.23]"


def test_all_that_findings_runs_is_rehearsed() -> None:
    listed = re.search(r"^FINDINGS := (.*?[^\\])$", (ROOT / "Makefile").read_text(), re.MULTILINE | re.DOTALL)
    assert listed
    assert set(listed[1].replace("\\", "").split()) | {"robustness"} == set(rehearse.SMALL)
    assert all((ROOT / "benchmarks" / f"{name}.py").is_file() for name in rehearse.SMALL)


def test_a_rehearsal_leaves_the_pages_and_tells_what_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, sizes = tmp_path / "rehearsal" / "build" / "kept", []

    def main() -> None:
        sizes.append(study.SIZE)
        if forgetful or not kept.exists():
            kept.parent.mkdir(exist_ok=True)
            kept.write_text(f"{len(sizes)}")
        pages.write("docs/planted.md", "planted-truth", "a small run")

    study = SimpleNamespace(SIZE=100, main=main)
    monkeypatch.setitem(sys.modules, "study", study)
    monkeypatch.setitem(rehearse.SMALL, "study", lambda m: {"SIZE": m.SIZE // 50})
    monkeypatch.setattr(pages, "ROOT", ROOT)
    monkeypatch.setattr(sys, "argv", [])
    before = (ROOT / "docs" / "planted.md").read_text()
    forgetful = False
    assert rehearse.rehearse("study", tmp_path / "rehearsal").endswith("of 1 files anew: none")
    assert sizes == [2, 2]
    assert "a small run" in (tmp_path / "rehearsal" / "docs" / "planted.md").read_text()
    assert (ROOT / "docs" / "planted.md").read_text() == before
    forgetful = True
    monkeypatch.setattr(pages, "ROOT", ROOT)
    assert rehearse.rehearse("study", tmp_path / "rehearsal").endswith("of 1 files anew: build/kept")
