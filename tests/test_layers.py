"""The shape of the code: who may import whom, which library lives in which file, how long things may be."""

from __future__ import annotations

import ast
import re
import sys
import tokenize
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

# folder -> folders it may import; analysis and editing meet in values from models and probes
LAYERS = {
    "models": {"models"},
    "probes": {"models", "probes"},
    "analysis": {"models", "probes", "analysis"},
    "editing": {"models", "probes", "editing"},
    "denoscope": {"models", "probes", "analysis", "editing", "denoscope"},
}

# library -> the one folder or file that may import it (matplotlib: figures for print, and training curves)
HOMES = {
    "diffusers": "models/",
    "transformers": "models/",
    "captum": "analysis/attribution/gradients/captum_methods.py",
    "matplotlib": ("analysis/plots/static.py", "models/zoo/training/evaluate/curves.py"),
    "nnsight": "probes/nnsight.py",
    "plotly": "analysis/plots/",
    "ray": "probes/sweep/ray.py",
}

# import name -> name on the package index, where they differ
DISTRIBUTIONS = {"PIL": "pillow", "sklearn": "scikit-learn", "resvg_py": "resvg_py"}
# what declared packages always bring along and what we may therefore use
BROUGHT_ALONG = {"scipy": "scikit-learn", "tokenizers": "transformers", "huggingface_hub": "diffusers"}

# built-in error -> our own, which is one too and which the command line tells in one line
OWN_ERRORS = {
    "ValueError": "UsageError",
    "TypeError": "WrongTypeError",
    "LookupError": "NotFoundError",
    "KeyError": "NotFoundError",
    "RuntimeError": "StateError",
    "FileNotFoundError": "MissingFileError",
    "FileExistsError": "FileInTheWayError",
}

HOOKS = "models/places/hooks.py"  # the only code that adds hooks, because it is the code that removes them

UNSAFE_MODULES = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
UNSAFE_CALLS = {("torch", "load"), ("torch", "save")}

# Limits are there to split at, never to be raised.
MOST_IN_FILE = 300  # all lines
MOST_IN_ROOM = 20  # Python files
MOST_IN_FUNCTION = 50  # code lines: no blank lines, comments, docstrings; explaining costs nothing

Source = tuple[str, str]  # path from the root, text


def sources() -> list[Source]:
    """Every Python file of the package, as (path from the root, text)."""
    files = sorted(f for folder in LAYERS for f in (ROOT / folder).rglob("*.py"))
    return [(str(f.relative_to(ROOT)), f.read_text(encoding="utf-8")) for f in files]


def module_name(path: str) -> list[str]:
    """The import name of a file, in parts: ["denoscope", "models", "site"]."""
    parts = list(Path(path).with_suffix("").parts)
    parts = parts[:-1] if parts[-1] == "__init__" else parts
    return parts if parts[0] == "denoscope" else ["denoscope", *parts]


def imports(path: str, text: str) -> Iterator[tuple[int, str, bool]]:
    """Every import of a file, wherever it stands: (line, full dotted name, was it relative)."""
    package = module_name(path)[: None if Path(path).name == "__init__.py" else -1]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, False) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = [*base, *(node.module.split(".") if node.module else [])]
            yield from ((node.lineno, ".".join([*base, alias.name]), node.level > 0) for alias in node.names)


def layer_of(name: str) -> str:
    """The folder that a dotted name inside the package comes from."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in LAYERS else "denoscope"


def layers(path: str, text: str) -> Iterator[str]:
    folder = Path(path).parts[0]
    for line, name, relative in imports(path, text):
        if name.split(".")[0] != "denoscope":
            continue
        if not relative:
            yield f"{path}:{line} imports {name} absolutely; inside the package imports are relative"
        if layer_of(name) not in LAYERS[folder]:
            yield f"{path}:{line} imports {name}, but {folder} may import only {sorted(LAYERS[folder])}"


def training_used(path: str, text: str) -> Iterator[str]:
    """What made the embedded models is not asked: world.json and the evaluation data say what it knew."""
    for line, name, _ in imports(path, text):
        if name.startswith("denoscope.models.zoo.training") and not path.startswith("models/zoo/"):
            yield f"{path}:{line} imports {name}; what is known of the world is in world.json and zoo.data()"


def homes(path: str, text: str) -> Iterator[str]:
    for line, name, _ in imports(path, text):
        home = HOMES.get(name.split(".")[0], "")
        if not path.startswith(home):
            yield f"{path}:{line} imports {name}, which only {home} may"


def declared() -> set[str]:
    """Names of all packages that pyproject.toml asks for."""
    project = PROJECT["project"]
    wanted = [
        *project["dependencies"],
        *(w for extra in project["optional-dependencies"].values() for w in extra),
    ]
    names = ("".join(c if c.isalnum() or c in "-_." else " " for c in w).split()[0] for w in wanted)
    return {name.lower() for name in names}


def undeclared(path: str, text: str) -> Iterator[str]:
    for line, name, relative in imports(path, text):
        top = name.split(".")[0]
        if relative or top in sys.stdlib_module_names or top == "denoscope":
            continue
        package = BROUGHT_ALONG.get(top, DISTRIBUTIONS.get(top, top))
        if package.lower() not in declared():
            yield f"{path}:{line} imports {name}, which pyproject.toml does not ask for"


def unsafe(path: str, text: str) -> Iterator[str]:
    for line, name, _ in imports(path, text):
        if name.split(".")[0] in UNSAFE_MODULES:
            yield f"{path}:{line} imports {name}; files we write are safetensors and JSON"
        if tuple(name.split(".")) in UNSAFE_CALLS:
            yield f"{path}:{line} imports {name}; files we read and write are safetensors and JSON"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if (node.value.id, node.attr) in UNSAFE_CALLS:
                yield f"{path}:{node.lineno} uses {node.value.id}.{node.attr}"
        elif (
            isinstance(node, ast.keyword)
            and node.arg == "allow_pickle"
            and ast.unparse(node.value) != "False"
        ):
            yield f"{path}:{node.value.lineno} allows pickles"


def hooking(path: str, text: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute) and re.fullmatch(r"register_\w*hook", node.attr) and path != HOOKS:
            yield f"{path}:{node.lineno} adds a hook; only {HOOKS} does"


def printing(path: str, text: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            yield f"{path}:{node.lineno} prints; library code returns values or logs"


def anonymous_errors(path: str, text: str) -> Iterator[str]:
    """Errors that the command line would take for bugs; OSErrors of the system and protocols aside."""
    for node in ast.walk(ast.parse(text)):
        raised = node.exc if isinstance(node, ast.Raise) else None
        name = ast.unparse(raised.func) if isinstance(raised, ast.Call) else ""
        if name in OWN_ERRORS:
            yield f"{path}:{node.lineno} raises {name}; raise {OWN_ERRORS[name]} of models/errors.py"


def long_files(path: str, text: str) -> Iterator[str]:
    if (n := len(text.splitlines())) > MOST_IN_FILE:
        yield f"{path} has {n} lines; {MOST_IN_FILE} at most"


def full_rooms(paths: Iterable[str]) -> Iterator[str]:
    for room, n in Counter(str(Path(path).parent) for path in paths).items():
        if n > MOST_IN_ROOM:
            yield f"{room}/ has {n} Python files; {MOST_IN_ROOM} at most"


def code_lines(text: str) -> set[int]:
    """The lines that hold code: not blank, not only a comment, not a docstring."""
    empty = {
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
    }
    tokens = tokenize.generate_tokens(iter(text.splitlines(keepends=True)).__next__)
    lines = {n for t in tokens if t.type not in empty for n in range(t.start[0], t.end[0] + 1)}
    for node in ast.walk(ast.parse(text)):
        body = getattr(node, "body", None)
        first = body[0] if isinstance(body, list) and body else None
        if (
            isinstance(first, ast.Expr)
            and isinstance(first.value, ast.Constant)
            and isinstance(first.value.value, str)
        ):
            lines -= set(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    return lines


def long_functions(path: str, text: str) -> Iterator[str]:
    code = code_lines(text)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            n = len(code & set(range(node.lineno, (node.end_lineno or node.lineno) + 1)))
            if n > MOST_IN_FUNCTION:
                yield f"{path}:{node.lineno} {node.name} has {n} code lines; {MOST_IN_FUNCTION} at most"


Check = Callable[[str, str], Iterator[str]]
CHECKS: list[Check] = [
    layers,
    training_used,
    homes,
    undeclared,
    unsafe,
    hooking,
    printing,
    anonymous_errors,
    long_files,
    long_functions,
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_code_keeps_to(check: Check) -> None:
    found = [problem for path, text in sources() for problem in check(path, text)]
    assert not found, "\n" + "\n".join(found)


def test_every_folder_with_code_is_installed() -> None:
    folders = {str(Path(path).parent) for path, _ in sources()}
    mapped = PROJECT["tool"]["setuptools"]["package-dir"]
    assert folders == set(mapped.values())
    assert set(mapped) == set(PROJECT["tool"]["setuptools"]["packages"])
    assert all((ROOT / folder / "__init__.py").is_file() for folder in folders)


def test_every_other_file_of_the_package_is_installed() -> None:
    settings = PROJECT["tool"]["setuptools"]
    installed = {
        file
        for package, patterns in settings["package-data"].items()
        for pattern in patterns
        for file in (ROOT / settings["package-dir"][package]).glob(pattern)
    }
    there = {f for folder in LAYERS for f in (ROOT / folder).rglob("*") if f.is_file()}
    forgotten = [f for f in there - installed if f.suffix not in (".py", ".pyc")]
    assert not forgotten, f"not in package-data: {forgotten}"


def test_no_room_is_overfull() -> None:
    assert list(full_rooms(path for path, _ in sources())) == []
    assert list(full_rooms(f"editing/{i}.py" for i in range(20))) == []
    assert list(full_rooms(f"editing/{i}.py" for i in range(21))) == [
        "editing/ has 21 Python files; 20 at most"
    ]


def test_torch_is_pinned_exactly() -> None:
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch=")]
    assert pins == ["torch==2.13.0"]


PLANTED = [
    (layers, "models/x.py", "from ..probes.trace import trace", "models may import only"),
    (layers, "models/x.py", "def f():\n    from .. import probes", "models may import only"),
    (layers, "models/zoo/x.py", "from ...analysis import scores", "models may import only"),
    (layers, "models/zoo/__init__.py", "from ...editing import edit", "models may import only"),
    (layers, "models/x.py", "from .. import __version__", "models may import only"),
    (layers, "analysis/x.py", "from ..editing.edit import Edit", "analysis may import only"),
    (layers, "analysis/x.py", "from .. import editing", "analysis may import only"),
    (layers, "editing/x.py", "import denoscope.analysis.scores", "editing may import only"),
    (layers, "editing/x.py", "from denoscope.models import site", "relative"),
    (layers, "probes/x.py", "from ..cli import app", "probes may import only"),
    (training_used, "denoscope/x.py", "from .models.zoo.training.data.world import THINGS", "world.json"),
    (training_used, "models/x.py", "def f():\n    from .zoo import training", "zoo.data()"),
    (homes, "probes/x.py", "import diffusers", "only models/ may"),
    (homes, "editing/x.py", "def f():\n    from plotly import graph_objects", "only analysis/plots/ may"),
    (homes, "probes/x.py", "import nnsight.intervention", "only probes/nnsight.py may"),
    (undeclared, "probes/x.py", "import einops", "does not ask for"),
    (unsafe, "editing/x.py", "import pickle", "safetensors"),
    (unsafe, "editing/x.py", "from torch import save", "safetensors"),
    (unsafe, "editing/x.py", "import torch\ntorch.load('x')", "torch.load"),
    (unsafe, "editing/x.py", "np.load('x', allow_pickle=True)", "allows pickles"),
    (hooking, "probes/x.py", "m.register_full_backward_hook(f)", "only models/places/hooks.py"),
    (printing, "editing/x.py", "print('here')", "prints"),
    (anonymous_errors, "editing/x.py", "raise ValueError('x') from error", "raise UsageError"),
    (long_files, "editing/x.py", "# y\n\nx = 1\n" * 100 + "\n", "301 lines; 300 at most"),
    (long_functions, "editing/x.py", "def f():\n" + "    x = 1\n" * 50, "51 code lines"),
]


@pytest.mark.parametrize(("check", "path", "text", "expected"), PLANTED)
def test_a_planted_violation_is_found(check: Check, path: str, text: str, expected: str) -> None:
    found = list(check(path, text))
    assert expected in "\n".join(found)


CLEAN = [
    (
        layers,
        "denoscope/x.py",
        "from . import analysis, editing\nfrom .cli import app\nfrom .models.site import Site",
    ),
    (layers, "analysis/x.py", "from ..probes.trace import trace\nfrom .scores import Scores"),
    (layers, "models/zoo/x.py", "from ..site import near\nfrom . import folder"),
    (training_used, "models/zoo/training/x.py", "from .data import world"),
    (training_used, "denoscope/x.py", "from .models import zoo"),
    (homes, "models/zoo/x.py", "import diffusers, torch"),
    (undeclared, "models/x.py", "import json, PIL.Image, sklearn.linear_model\nfrom .json import x"),
    (hooking, "models/places/hooks.py", "m.register_forward_hook(f)\nm.register_buffer('x', y)"),
    (long_files, "editing/x.py", "# y\n\nx = 1\n" * 100),
    (printing, "denoscope/cli/output.py", "console.print('x')"),
    (anonymous_errors, "editing/x.py", "raise UsageError('x')\nraise OSError(1, 'x')\nraise error"),
    (unsafe, "probes/x.py", "np.load('x', allow_pickle=False)\nsafetensors.torch.load('x')"),
    (
        long_functions,
        "editing/x.py",
        'def f():\n    """Doc.\n\n    More."""\n' + "    x = 1\n\n    # y\n" * 49,
    ),
]


@pytest.mark.parametrize(("check", "path", "text"), CLEAN)
def test_what_is_allowed_passes(check: Check, path: str, text: str) -> None:
    assert list(check(path, text)) == []
