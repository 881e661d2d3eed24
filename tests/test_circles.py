"""No module needs one that needs it back; imports for annotations and inside functions are included.

Read from the syntax trees. Public names that are imported when first asked for (``_HOMES``, ``lazily``) are
strings and do not count: the ``__init__`` of a folder may offer what its files hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pytest

from tests.test_layers import Source, imports, module_name, sources

Graph = dict[str, set[str]]


def graph(files: Iterable[Source]) -> Graph:
    """Which modules each module imports, by dotted names.

    Importing ``a.b.c`` runs the ``__init__`` of ``a`` and of ``a.b`` too: these count, unless one's own.
    """
    texts = {".".join(module_name(path)): (path, text) for path, text in files}
    found: Graph = {}
    for module, (path, text) in texts.items():
        wanted = {home(name, texts) for _, name, _ in imports(path, text)} - {""}
        own = {module, *above(module)}
        found[module] = wanted | {p for name in wanted for p in above(name) if p in texts and p not in own}
        found[module] -= {module}
    return found


def above(module: str) -> list[str]:
    """The folders that a module is in: ``a`` and ``a.b`` for ``a.b.c``."""
    parts = module.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts))]


def home(name: str, modules: Iterable[str]) -> str:
    """The module that a dotted name is, or is defined in; "" if it is none of ours."""
    known = set(modules)
    parts = name.split(".")
    prefixes = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    return next((prefix for prefix in prefixes if prefix in known), "")


def circles(needs: Mapping[str, set[str]]) -> set[frozenset[str]]:
    """The largest groups of modules each of which needs, in the end, all others of its group."""
    reached = {module: reach(module, needs) for module in needs}
    groups = {
        frozenset(m for m in needs if m in reached[module] and module in reached[m]) for module in needs
    }
    return {group for group in groups if group}


def reach(module: str, needs: Mapping[str, set[str]]) -> set[str]:
    """All that a module needs; itself only if it stands in a circle."""
    seen: set[str] = set()
    new = [module]
    while new:
        further = needs.get(new.pop(), set()) - seen
        seen |= further
        new += further
    return seen


def test_there_are_no_circles() -> None:
    found = circles(graph(sources()))
    told = "\n".join(" <-> ".join(sorted(circle)) for circle in found)
    assert not found, f"these modules need each other:\n{told}"


PLANTED = {
    "two files": {"models/a.py": "from .b import x", "models/b.py": "from . import a"},
    "three files": {
        "models/a.py": "from .b import x",
        "models/b.py": "from .run.c import x",
        "models/run/c.py": "from ..a import x",
    },
    "inside a function": {"models/a.py": "from .b import x", "models/b.py": "def f():\n    from .a import y"},
    "for an annotation": {
        "models/a.py": "from .b import x",
        "models/b.py": "if TYPE_CHECKING:\n    from .a import Y",
    },
    "absolutely": {"models/a.py": "import denoscope.models.b", "models/b.py": "from .a import x"},
    "through the init of another folder": {
        "models/a.py": "from .run.b import x",
        "models/run/__init__.py": "from .c import y",
        "models/run/b.py": "",
        "models/run/c.py": "from ..a import z",
    },
}


@pytest.mark.parametrize("files", PLANTED.values(), ids=PLANTED)
def test_a_planted_circle_is_found(files: dict[str, str]) -> None:
    assert len(circles(graph(files.items()))) == 1


def test_what_is_no_circle_passes() -> None:
    files = {
        "models/__init__.py": "from .a import x",
        "models/a.py": "from .b import x\nfrom .run import c",
        "models/b.py": "from .run.c import a\nimport torch.a",
        "models/run/__init__.py": "from .c import a",
        "models/run/c.py": "a = 1",
    }
    assert circles(graph(files.items())) == set()
