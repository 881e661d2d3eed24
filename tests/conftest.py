"""What all tests share: session models, and a watch that nothing is left behind on them."""

from __future__ import annotations

import ast
import functools
import gc
import inspect
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import is_dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a missing file is a failing test, never a download
os.environ.setdefault("MPLBACKEND", "Agg")  # no screen
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of processes that tests start, too

import hypothesis  # noqa: E402
import jaxtyping  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from beartype import BeartypeConf, beartype  # noqa: E402
from torch import nn  # noqa: E402

# With 2 cores, torch's default threads made the same tests 20 times slower.
torch.set_num_threads(1)

hypothesis.settings.register_profile("few", max_examples=10, deadline=None, derandomize=True, database=None)
hypothesis.settings.register_profile("many", max_examples=300, deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "few"))


ARRAYS = {"Float", "Int", "Bool", "Shaped"}


def _is_array(word: str, names: dict[str, Any]) -> bool:
    value = names.get(word)
    return word in ARRAYS or (isinstance(value, type) and issubclass(value, jaxtyping.AbstractArray))


def array_hints(function: Callable[..., Any]) -> dict[str, Any]:
    """The annotations that speak of arrays; not those that only a type checker can read."""
    found, names = {}, function.__globals__
    for name, hint in function.__annotations__.items():
        yields = name == "return" and inspect.isgeneratorfunction(function)
        if not yields and any(_is_array(word, names) for word in re.findall(r"\w+", str(hint))):
            with suppress(NameError):
                found[name] = eval(hint, names) if isinstance(hint, str) else hint
    return found


def check_arrays(what: Any) -> Any:
    """Check the array annotations of a function, or of a dataclass, at every call; plain ones are mypy's.

    A function without any stays as it is: wrappers around all of them took half of the time of all tests.
    """
    if isinstance(what, type):
        if "__init__" in vars(what) and is_dataclass(what):
            what.__init__ = check_arrays(what.__init__)
        return what
    hints = array_hints(what)
    if not hints:
        return what
    copy = FunctionType(what.__code__, what.__globals__, what.__name__, what.__defaults__, what.__closure__)
    copy.__kwdefaults__, copy.__annotations__, copy.__qualname__ = (
        what.__kwdefaults__,
        hints,
        what.__qualname__,
    )
    checking = beartype(conf=BeartypeConf(violation_type=TypeError))(copy)

    @functools.wraps(what)
    def checked(*args: Any, **kwargs: Any) -> Any:
        if jaxtyping.config.jaxtyping_disable:
            return what(*args, **kwargs)
        with jaxtyping.jaxtyped("context"):  # one letter is one size, in all arrays of a call
            return checking(*args, **kwargs)

    return checked


class ArraysChecked(SourceFileLoader):
    """Reads a module so that its functions check their arrays; kept out of the bytecode that others read."""

    def get_code(self, fullname: str) -> CodeType:
        tree = ast.parse(self.get_data(self.path), self.path)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                last = len(node.decorator_list) if isinstance(node, ast.FunctionDef) else 0
                decorator = ast.copy_location(ast.Name("__check_arrays__", ast.Load()), node)
                node.decorator_list.insert(last, decorator)
        return compile(tree, self.path, "exec", dont_inherit=True)

    def exec_module(self, module: ModuleType) -> None:
        vars(module)["__check_arrays__"] = check_arrays
        super().exec_module(module)


class Finder(MetaPathFinder):
    """Has the modules of denoscope read by that loader."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path) if fullname.split(".")[0] == "denoscope" else None
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = ArraysChecked(spec.loader.name, spec.loader.path)
        return spec


sys.meta_path.insert(0, Finder())


LONGEST = {"test_docs.py", "test_notebooks.py", "test_whose_error.py"}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The longest files first, lest one worker runs them alone at the end; stress tests out.

    Unless -m speaks of them; in addopts, a user's own -m would bring them back.
    """
    items.sort(key=lambda item: item.path.name not in LONGEST)
    if "stress" in config.option.markexpr:
        return
    left_out = [item for item in items if item.get_closest_marker("stress")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_collection_finish() -> None:
    """Spare the garbage collector what was imported: half a million objects, which stay to the end."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the seconds that each folder of tests took; of all workers together, where there are several."""
    seconds: Counter[str] = Counter()
    for report in (r for reports in terminalreporter.stats.values() for r in reports):
        if isinstance(report, pytest.TestReport):
            seconds[str(Path(report.nodeid.split("::")[0]).parent)] += report.duration
    terminalreporter.section("seconds per folder")
    for folder, spent in seconds.most_common():
        terminalreporter.line(f"{spent:8.1f}  {folder}")
    terminalreporter.line(f"{seconds.total():8.1f}  all")


HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
)
INTS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Watch:
    """Remembers how a model was; ``changes`` says what is different now.

    Hooks and flags are compared every time, and a checksum over the bits of each weight that torch counts as
    written to; a thorough look takes the checksum of all weights, which also sees writes through ``.data``.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.reset()

    def reset(self) -> None:
        """Take the model as it is now for how it should be."""
        self.quick = self._quick()
        self.before = self._flags()
        self.versions = {name: t._version for name, t in self._tensors()}
        self.sums = self._sums()

    def changes(self, thorough: bool = True) -> list[str]:
        """Return what has changed, in words; empty if nothing has."""
        if self._quick() == self.quick and (not thorough or self._sums() == self.sums):
            return []
        now = self._flags()
        names = [k for k in {**self.before, **now} if self.before.get(k) != now.get(k)]
        found = [f"{k}: {self.before.get(k)} -> {now.get(k)}" for k in names]
        for name, tensor in self._tensors():
            if (thorough or tensor._version != self.versions.get(name)) and _checksum(
                tensor
            ) != self.sums.get(name):
                found.append(f"{name}: values changed")
        if not found:
            self.quick = self._quick()  # written to and put back: not to be looked at by name again
        return found

    def _sums(self) -> dict[str, int]:
        return {name: _checksum(t) for name, t in self._tensors()}

    def _quick(self) -> list[object]:
        """All that is compared, without names: after each of thousands of tests, time counts."""
        scheduler = getattr(self.model, "scheduler", None)
        seen: list[object] = [getattr(self.model, "call", None), *filter(callable, vars(scheduler).values())]
        for module in (m for part in self.model.components.values() for m in part.modules()):
            seen += [len(getattr(module, kind)) for kind in HOOKS]
            seen += [id(module), "forward" in vars(module), module.training]
            for tensor in (*module._parameters.values(), *module._buffers.values()):
                if tensor is not None:
                    seen += [id(tensor), tensor._version, tensor.requires_grad, tensor.grad is None]
        return seen

    def _flags(self) -> dict[str, Any]:
        scheduler = getattr(self.model, "scheduler", None)
        state: dict[str, Any] = {
            "model.call": getattr(self.model, "call", None),
            "functions set on the scheduler": sorted(k for k, v in vars(scheduler).items() if callable(v)),
        }
        for part, module in self.model.components.items():
            for name, child in module.named_modules():
                hooks = tuple(len(getattr(child, kind)) for kind in HOOKS)
                state[f"{part}.{name} hooks, own forward, training"] = (
                    *hooks,
                    "forward" in vars(child),
                    child.training,
                )
        for name, tensor in self._tensors():
            state[f"{name} identity, requires_grad, has no grad"] = (
                id(tensor),
                tensor.requires_grad,
                tensor.grad is None,
            )
        return state

    def _tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        for part, module in self.model.components.items():
            for kind in (module.named_parameters(), module.named_buffers()):
                yield from ((f"{part}.{name}", tensor) for name, tensor in kind)


def _checksum(tensor: torch.Tensor) -> int:
    flat = tensor.detach().contiguous().reshape(-1)
    return int(flat.view(INTS[flat.element_size()]).sum(dtype=torch.int64)) if flat.numel() else 0


def global_leftovers() -> list[str]:
    """Return what hooks or function modes are active for all of torch."""
    kinds = (
        "forward",
        "forward_pre",
        "backward",
        "backward_pre",
        "module_registration",
        "parameter_registration",
    )
    hooks = {k: len(getattr(nn.modules.module, f"_global_{k}_hooks", ())) for k in kinds}
    found = [f"{n} global {k} hooks" for k, n in hooks.items() if n]
    modes = torch._C._len_torch_function_stack()
    return found + ([f"{modes} torch function modes"] if modes else [])


WATCHED: dict[str, Watch] = {}


def _watched(name: str, model: Any) -> Any:
    WATCHED[name] = Watch(model)
    return model


@pytest.fixture(scope="session")
def tiny() -> Any:
    """A random Stable Diffusion model; shared, so leave it as it was."""
    from denoscope.models.load import load
    from denoscope.models.synthetic.tiny import tiny_sd

    return _watched("tiny", load(tiny_sd()))


@pytest.fixture(scope="session")
def emoji() -> Any:
    """The embedded model; shared, so leave it as it was."""
    from denoscope.models.load import load

    return _watched("emoji", load("emoji"))


@pytest.fixture(autouse=True)
def wrong_arrays_on_purpose(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let a test marked ``misshapen`` hand over arrays that the annotations do not allow."""
    jaxtyping.config.update("jaxtyping_disable", request.node.get_closest_marker("misshapen") is not None)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a hook, a function mode or a changed weight on a session model."""
    yield
    found = [f"torch: {what}" for what in global_leftovers()]
    for name, watch in WATCHED.items():
        changes = watch.changes(thorough=name in request.fixturenames)
        if changes:
            found += [f"{name}: {change}" for change in changes[:5]]
            watch.reset()  # one leak fails one test
    if found:
        pytest.fail("left behind by this test:\n  " + "\n  ".join(found))


@pytest.fixture
def watch() -> type[Watch]:
    """The watch itself, for the tests of it."""
    return Watch


@pytest.fixture
def leftovers() -> Callable[[], list[str]]:
    """The look at torch's global state, for the tests of it."""
    return global_leftovers
