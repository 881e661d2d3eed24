"""The watch of conftest.py must see what it is there for."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from denoscope.models.site import Site
from denoscope.probes.direction import Direction

pytest_plugins = ["pytester"]


SITE = Site("unet/mid.attn.0.0/self_attn.out")


class Toy:
    """As much of a model as the watch looks at."""

    def __init__(self) -> None:
        self.live = None
        self.scheduler = nn.Module()
        self.components = {"net": nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3).half()).eval()}


def _write_and_restore(net: nn.Sequential) -> None:
    weight = net[0].weight
    old = weight.detach().clone()
    with torch.no_grad():
        weight.add_(1)
        weight.copy_(old)


LEAKS: dict[str, Callable[[nn.Sequential], Any]] = {
    "forward hook": lambda net: net[0].register_forward_hook(lambda *_: None),
    "pre-hook": lambda net: net[0].register_forward_pre_hook(lambda *_: None),
    "backward hook": lambda net: net.register_full_backward_hook(lambda *_: None),
    "backward pre-hook": lambda net: net.register_full_backward_pre_hook(lambda *_: None),
    "own forward": lambda net: setattr(net[0], "forward", lambda x: x),
    "written through data": lambda net: net[0].weight.data.mul_(1.0001),
    "half precision": lambda net: net[1].weight.data.mul_(1.01),
    "buffer": lambda net: net[1].running_mean.add_(1),
    "new parameter": lambda net: setattr(net[0], "weight", nn.Parameter(net[0].weight.detach().clone())),
    "grad": lambda net: net[0].bias.sum().backward(),
    "requires_grad": lambda net: net[0].weight.requires_grad_(False),
    "training": lambda net: net.train(),
}


@pytest.mark.parametrize("leak", LEAKS)
def test_watch_sees(leak: str, watch: Any) -> None:
    model = Toy()
    seen = watch(model)
    assert seen.changes() == []
    LEAKS[leak](model.components["net"])
    assert seen.changes()
    seen.reset()
    assert seen.changes() == []


def test_watch_lets_restored_weights_pass(watch: Any) -> None:
    model = Toy()
    seen = watch(model)
    _write_and_restore(model.components["net"])
    assert seen.changes() == seen.changes(thorough=False) == []
    with torch.no_grad():
        model.components["net"][0].weight.add_(1)
    assert seen.changes(thorough=False) == ["net.0.weight: values changed"]


def test_global_leftovers_are_seen(leftovers: Callable[[], list[str]]) -> None:
    with ExitStack() as stack:
        stack.callback(nn.modules.module.register_module_forward_hook(lambda *_: None).remove)
        stack.enter_context(TorchFunctionMode())
        assert leftovers() == ["1 global forward hooks", "1 torch function modes"]
    assert leftovers() == []


def test_array_annotations_are_checked() -> None:
    with pytest.raises(TypeError, match=r"Float\[Tensor, \" channel\"\]|channel"):
        Direction(SITE, torch.zeros(()))


@pytest.mark.misshapen
def test_unless_a_test_says_otherwise() -> None:
    with pytest.raises(ValueError, match="one finite, non-zero vector"):
        Direction(SITE, torch.zeros(2, 2))


@pytest.mark.stress
@pytest.mark.slow
def test_a_leaking_test_fails(pytester: pytest.Pytester) -> None:
    pytester.makeconftest((Path(__file__).parent / "conftest.py").read_text())
    pytester.makepyfile(
        """
        import pytest

        def test_clean(tiny): pass
        def test_hook(tiny): tiny.denoiser.register_forward_hook(lambda *_: None)
        def test_after_hook(tiny): pass
        def test_weight(tiny): next(tiny.denoiser.parameters()).data.add_(1)
        def test_after_weight(tiny): pass

        @pytest.mark.stress
        def test_long(): raise AssertionError("left out")
        """
    )
    mark = "stress: too long for every change"
    pytester.makeini(f"[pytest]\nmarkers = {mark}")
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-m", "not slow")
    result.assert_outcomes(passed=5, errors=2, deselected=1)
    result.stdout.fnmatch_lines(["*ERROR at teardown of test_hook*", "*ERROR at teardown of test_weight*"])
    result.stdout.fnmatch_lines(["*= seconds per folder =*", "* .", "* all"])


def test_seconds_are_added_up_by_folder(request: pytest.FixtureRequest) -> None:
    plugin = request.config.pluginmanager.get_plugin(str(Path(__file__).parent / "conftest.py"))
    said: list[str] = []

    class Reporter:
        def section(self, title: str) -> None:
            said.append(title)

        line = section

        def __init__(self, *reports: pytest.TestReport) -> None:
            self.stats = {"": reports[:1], "passed": [*reports[1:], object()]}

    def report(path: str, seconds: float) -> pytest.TestReport:
        return pytest.TestReport(path, (path, 0, ""), {}, "passed", None, "call", duration=seconds)

    plugin.pytest_terminal_summary(
        Reporter(
            report("tests/a/test_x.py::test_1", 1.0),
            report("tests/a/test_y.py::test_2[b::c/d]", 2.5),
            report("tests/test_z.py::test_3", 10.0),
        )
    )
    assert [" ".join(line.split()) for line in said] == [
        "seconds per folder",
        "10.0 tests",
        "3.5 tests/a",
        "13.5 all",
    ]
