"""The public names. A change here is a change for users: it belongs into CHANGELOG.md as well."""

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import denoscope
from tests.test_circles import home
from tests.test_layers import Source, imports, module_name, sources

NAMES = [
    "Direction",
    "Edit",
    "Intervention",
    "Model",
    "Observer",
    "Prompt",
    "Site",
    "State",
    "Step",
    "SweepRun",
    "Trace",
    "When",
    "analysis",
    "attached",
    "bench",
    "browse_features",
    "compare_models",
    "editing",
    "explain",
    "intervening",
    "investigate",
    "load",
    "models",
    "on_ray",
    "probes",
    "steered",
    "study_bias",
    "sweep",
    "trace",
]


FOLDERS = ("analysis", "bench", "editing", "models", "probes")


def test_the_public_names_are_these() -> None:
    assert sorted(denoscope.__all__) == NAMES
    assert set(dir(denoscope)) >= {*NAMES, "__version__"}


@pytest.mark.parametrize("name", NAMES)
def test_each_name_is_there_and_says_what_it_is(name: str) -> None:
    assert getattr(denoscope, name).__doc__


def test_a_wrong_name_says_what_there_is() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'tracer'.*trace"):
        _ = denoscope.tracer  # type: ignore[attr-defined]


def test_the_four_folders_are_not_top_level_packages() -> None:
    """Installed, nothing but denoscope appears; a user's own models/ cannot clash with ours."""
    code = "import sys, denoscope.models; print('models' in sys.modules, denoscope.models.__name__)"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "denoscope.models"]


def test_a_checkout_is_whole_where_a_wheel_is_installed() -> None:
    """From its root Python finds the folder denoscope/ alone, and no finder of an editable install helps."""
    code = (
        "import sys; sys.meta_path[:] = [m for m in sys.meta_path if 'editable' not in repr(m).lower()];"
        "from denoscope.models.site import Site; import denoscope.analysis; print(Site.__module__)"
    )
    root = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.split() == ["denoscope.models.site"]


def test_importing_denoscope_is_cheap_and_silent() -> None:
    """Heavy libraries are imported when first needed; the command line's help must not wait for them."""
    heavy = ["torch", "diffusers", "transformers", "nnsight", "captum", "plotly", "matplotlib", "ray"]
    code = f"import sys, denoscope; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def homes(path: str, text: str, modules: Mapping[str, Source]) -> dict[str, str]:
    """For each name a file imports or offers lazily: the module that defines it; "" if it is a module."""
    package = ".".join(module_name(path))
    wanted = [name for _, name, _ in imports(path, text)]
    found = {name.split(".")[-1]: "" if name in modules else home(name, modules) for name in wanted}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "lazily":
            lazy: dict[str, str] = ast.literal_eval(node.args[1])
            found |= {name: below and f"{package}.{below}" for name, below in lazy.items()}
    return found


def hidden(module: ModuleType, homes: Mapping[str, str], modules: Mapping[str, Source]) -> Iterator[str]:
    """Public names of a module that are not what they should be, after all modules have been imported."""
    for name in module.__all__:
        full, value = f"{module.__name__}.{name}", getattr(module, name)
        defined_in = homes.get(name, module.__name__)
        if not defined_in:
            if value is not sys.modules[full]:
                yield f"{full} is {value!r}, not the module of that name"
        elif full in modules:
            yield f"{full} shares its name with a module beside it"
        elif value is not getattr(import_module(defined_in), name):
            yield f"{full} is {value!r}, not what {defined_in} defines"


def packaged(files: list[Source]) -> dict[str, Source]:
    """Files by the dotted names of their modules."""
    return {".".join(module_name(path)): (path, text) for path, text in files}


def all_hidden(modules: Mapping[str, Source]) -> list[str]:
    """Import every module, then look at every public name."""
    opened = {name: import_module(name) for name in modules if not name.endswith("__main__")}
    public = {name: module for name, module in opened.items() if hasattr(module, "__all__")}
    return [
        problem
        for name, module in public.items()
        for problem in hidden(module, homes(*modules[name], modules), modules)
    ]


def test_no_public_name_is_hidden_by_a_module_beside_it() -> None:
    assert all_hidden(packaged(sources())) == []
    assert all(callable(getattr(denoscope, name)) for name in NAMES if name not in FOLDERS)


LAZY = "from denoscope.models.lazy import lazily\n__getattr__, __dir__, __all__ = lazily(__name__, %r)\n"
PLANTED = {
    "a module hides a lazy name": (
        {"__init__": LAZY % {"sweep": "runs"}, "runs": "sweep = len", "sweep": ""},
        "shares its name",
    ),
    "a file named as its function": (
        {"__init__": "from .sweep import sweep\n__all__ = ['sweep']", "sweep": "sweep = len"},
        "shares its name",
    ),
    "a function hides a lazy module": (
        {
            "__init__": LAZY % {"sweep": ""} + "from .a import x\nsweep = x",
            "a": "from .sweep import x",
            "sweep": "x = len",
        },
        "not the module",
    ),
    "another of the same name": (
        {"__init__": "from .a import sweep\nsweep = max\n__all__ = ['sweep']", "a": "sweep = len"},
        "not what",
    ),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_clash_is_found(planted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder of the package that is there for this test only."""
    files, message = PLANTED[planted]
    package = f"planted_{list(PLANTED).index(planted)}"
    (tmp_path / package).mkdir()
    for name, text in files.items():
        (tmp_path / package / f"{name}.py").write_text(text)
    monkeypatch.setattr(denoscope, "__path__", [*denoscope.__path__, str(tmp_path)])
    paths = [(f"denoscope/{package}/{name}.py", text) for name, text in files.items()]
    found = all_hidden(packaged(paths))
    for name in [name for name in sys.modules if name.startswith(f"denoscope.{package}")]:
        del sys.modules[name]
    delattr(denoscope, package)
    assert any(message in problem for problem in found)
