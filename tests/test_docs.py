"""What the documentation shows works: python blocks in README.md and docs/, and examples in docstrings.

A fenced block that starts with "```python" is run; the blocks of one page share their names, top to bottom.
"```python no-run" is only compiled. Docstring examples see the names of their module and the public names.
"""

from __future__ import annotations

import doctest
import importlib
import inspect
import linecache
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import denoscope

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
FOLDERS = ("models", "probes", "analysis", "editing", "denoscope")
BLOCK = re.compile(r"^```python(?P<tags>[^\n]*)\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)")


def blocks(text: str) -> Iterator[tuple[str, bool]]:
    """The python blocks of a page, each moved to its own line numbers, and whether to run it."""
    for found in BLOCK.finditer(text):
        above = text.count("\n", 0, found.start("code"))
        yield "\n" * above + found["code"], "no-run" not in found["tags"]


def run_page(name: str, text: str) -> dict[str, Any]:
    """Run a page's blocks in order, in one namespace, and return it."""
    names: dict[str, Any] = {"__name__": "__example__"}
    for i, (code, run) in enumerate(blocks(text), 1):
        file = f"{name}#{i}"
        # tracebacks and nnsight, which reads the source of what calls it, find the block, not the page
        linecache.cache[file] = (len(code), None, code.splitlines(keepends=True), file)
        compiled = compile(code, file, "exec")
        if run:
            exec(compiled, names)  # noqa: S102 - these are our own pages
    return names


def page_name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", [p for p in PAGES if "```python" in p.read_text()], ids=page_name)
def test_the_examples_of_a_page_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_page(str(page), page.read_text())


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    targets = LINK.findall(page.read_text())
    assert [t for t in targets if not (page.parent / t).exists()] == []


def test_every_page_can_be_reached_from_the_first() -> None:
    reached, todo = set(), [ROOT / "docs" / "index.md"]
    while todo:
        page = todo.pop()
        reached.add(page)
        linked = {(page.parent / t).resolve() for t in LINK.findall(page.read_text())}
        todo += [p for p in linked - reached if p.suffix == ".md" and p.is_file()]
    assert {p for p in PAGES if p.parent != ROOT} <= reached


def documented_modules() -> list[str]:
    """Import names of the modules whose docstrings hold examples."""
    files = sorted(f for folder in FOLDERS for f in (ROOT / folder).rglob("*.py"))
    parts = [f.relative_to(ROOT).with_suffix("").parts for f in files if ">>> " in f.read_text()]
    names = [".".join(p[:-1] if p[-1] == "__init__" else p) for p in parts]
    return [n if n.split(".")[0] == "denoscope" else f"denoscope.{n}" for n in names]


class Finder(doctest.DocTestFinder):
    """Finds the examples of decorated functions, too."""

    def _from_module(self, module: Any, object: Any) -> bool:  # noqa: A002 - doctest's name
        found = inspect.unwrap(object) if callable(object) else object
        return bool(super()._from_module(module, found))  # type: ignore[misc]


@pytest.mark.parametrize("name", documented_modules())
def test_the_examples_of_a_module_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    public = {n: getattr(denoscope, n) for n in denoscope.__all__}
    tests = Finder().find(module, name, extraglobs={**public, **vars(module)})
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    report: list[str] = []
    for test in tests:
        runner.run(test, out=report.append)
    assert runner.tries > 0
    assert not runner.failures, "".join(report)


def test_blocks_share_names_and_point_to_their_lines() -> None:
    page = (
        "# Page\n```python\nx = 1\n```\ntext\n```python no-run\nx = y\n```\n```python\nassert x == 1\n```\n"
    )
    assert run_page("page.md", page)["x"] == 1
    with pytest.raises(ZeroDivisionError) as caught:
        run_page("page.md", page + "```python\n1 / 0\n```\n")
    assert caught.traceback[-1].lineno + 1 == 13
    with pytest.raises(SyntaxError):
        run_page("page.md", "```python no-run\nx =\n```\n")
