"""Numbers in pages are written by commands: every pair of markers has one, every command its pair."""

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "benchmarks"))

import pages  # noqa: E402

PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
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
