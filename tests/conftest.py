"""What all tests share: session models, and a watch that nothing is left behind on them."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a missing file is a failing test, never a download
os.environ.setdefault("MPLBACKEND", "Agg")  # no screen
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of processes that tests start, too

import hypothesis  # noqa: E402
import jaxtyping  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from beartype import beartype  # noqa: E402
from torch import nn  # noqa: E402

# With 2 cores, torch's default threads made the same tests 20 times slower.
torch.set_num_threads(1)

hypothesis.settings.register_profile("few", max_examples=10, deadline=None, derandomize=True, database=None)
hypothesis.settings.register_profile("many", max_examples=300, deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "few"))


def check_arrays(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check the array annotations of a function at every call; plain ones are mypy's business."""
    hints = getattr(function, "__annotations__", {})
    arrays = {k: h for k, h in hints.items() if any(f"{kind}[" in str(h) for kind in ARRAYS)}
    if not arrays:
        return function
    function.__annotations__ = arrays
    return beartype(function)


ARRAYS = ("Float", "Int", "Bool", "Shaped")
# jaxtyping takes the checker by its dotted name
sys.modules["array_checks"] = ModuleType("array_checks")
sys.modules["array_checks"].check_arrays = check_arrays  # type: ignore[attr-defined]
jaxtyping.install_import_hook("denoscope", "array_checks.check_arrays")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out stress tests, unless -m speaks of them; in addopts, a user's own -m would bring them back."""
    if "stress" in config.option.markexpr:
        return
    left_out = [item for item in items if item.get_closest_marker("stress")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


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
        self.sums = {name: _checksum(t) for name, t in self._tensors()}

    def changes(self, thorough: bool = True) -> list[str]:
        """Return what has changed, in words; empty if nothing has."""
        if not thorough and self._quick() == self.quick:
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
