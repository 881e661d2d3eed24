"""Arguments, compared with their annotations: what is said, what is let through, and what is made plain."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pytest
import torch

from denoscope.editing import quickfix
from denoscope.models.arguments import check_fields, checked, read
from denoscope.models.errors import WrongTypeError
from denoscope.models.synthetic.tiny import tiny_sd
from denoscope.probes.sweep.sweeping import sweep
from denoscope.probes.trace import trace


@pytest.mark.parametrize(
    ("value", "hint", "message"),
    [
        (None, str, "x is None; it is a text"),
        ("a cat", Sequence[str], r"x is the single string 'a cat'; give a list: \['a cat'\]"),
        (3, Sequence[int], r"x is the single number 3; give a list: \[3\]"),
        (["a", None], Sequence[str], r"x\[1\] is None; it is a text"),
        ({"a": 1}, Mapping[str, str], r"x\['a'\] is 1; it is a text"),
        ({1: "a"}, Mapping[str, str], "a key of x is 1; it is a text"),
        (2.5, int | None, "x is 2.5; it is a whole number or None"),
        (b"a", str | None, "x is b'a'; it is a text or None"),
        (3, tuple[int, int], "x is 3; it is \\(a whole number, a whole number\\)"),
        ([1, "b"], tuple[int, int], r"x\[1\] is 'b'; it is a whole number"),
        ((1, 2, "b"), tuple[int, ...], r"x\[2\] is 'b'; it is a whole number"),
        (((1, 2), None), tuple[tuple[int, int], ...], r"x\[1\] is None"),
        ("1", float, "x is '1'; it is a number"),
        (1, Literal["a", "b"], "x is 1; it is 'a' or 'b'"),
        (1, Callable[[int], int], "x is 1; it is a function"),
        (torch.zeros(2), int, "x is a Tensor of torch.float32, shape \\(2,\\); it is a whole number"),
        (torch.tensor(0.5), int, "it is a whole number"),
        (object(), str, "x is an object; it is a text"),
    ],
)
def test_what_is_something_else_is_told_with_the_fix(value, hint, message):
    with pytest.raises(WrongTypeError, match=message):
        read("x", value, hint)


@pytest.mark.parametrize(
    ("value", "hint", "plain"),
    [
        (np.int64(3), int, 3),
        (np.float32(0.5), float, 0.5),
        (True, int, 1),
        (torch.tensor(3), int, 3),
        (np.arange(2), Sequence[int], [0, 1]),
        (torch.arange(2), Sequence[int] | None, [0, 1]),
        ((np.int64(3), True), tuple[int, ...], (3, 1)),
        (2**70, float, float(2**70)),
        (True, bool, True),
        (range(3), Sequence[int], range(3)),
        (None, int | None, None),
    ],
)
def test_numbers_of_numpy_and_arrays_for_lists_are_made_plain(value, hint, plain):
    found = read("x", value, hint)
    assert found == plain and type(found) is type(plain)


def test_tensors_and_lists_of_other_things_stay_themselves():
    x, texts = torch.zeros(2), ["a", "b"]
    assert read("x", x, torch.Tensor | Sequence[float]) is x
    assert read("x", texts, Sequence[str]) is texts
    assert read("x", x, Any) is x


def test_a_function_is_what_it_was_and_python_tells_of_its_keywords():
    @checked
    def twice(x: int, *more: str, y: float = 0.5, **rest: int) -> tuple[Any, ...]:
        """Say it."""
        return x, more, y, rest

    assert twice(np.int64(1), "a", y=2, z="anything") == (1, ("a",), 2, {"z": "anything"})
    assert twice.__doc__ == "Say it." and twice.__name__ == "twice"
    with pytest.raises(WrongTypeError, match=r"more\[1\] is 3; it is a text"):
        twice(1, "a", 3)
    with pytest.raises(TypeError, match="missing 1 required positional argument") as caught:
        twice()
    assert not isinstance(caught.value, WrongTypeError)


def test_contexts_and_methods_are_checked_when_called():
    class Thing:
        @checked
        def at(self, x: int) -> int:
            return x

        @classmethod
        @checked
        def of(cls, x: int) -> int:
            return x

    @checked
    @contextmanager
    def within(x: int):
        yield x

    for call in (Thing().at, Thing.of, within):
        with pytest.raises(WrongTypeError, match="x is 'a'"):
            call("a")
    with within(np.int64(3)) as x:
        assert type(x) is int


def test_fields_are_checked_and_made_plain():
    @dataclass(frozen=True)
    class Two:
        n: int
        more: Sequence[int] = ()

        def __post_init__(self) -> None:
            check_fields(self)

    two = Two(np.int64(3), np.arange(2))
    assert (two.n, two.more) == (3, [0, 1]) and type(two.n) is int
    with pytest.raises(WrongTypeError, match=r"more\[0\] is 0.5; it is a whole number"):
        Two(1, [0.5])


def test_a_pipeline_is_told_to_be_opened(tiny):
    pipe = tiny_sd()
    for call in (
        lambda: quickfix(pipe, {"cat": "dog"}),
        lambda: trace(pipe, ["a cat"], seeds=[0]),
        lambda: sweep(pipe, []),
    ):
        with pytest.raises(WrongTypeError, match=r"it is a Model: open one by denoscope.load\(pipe\)"):
            call()
    with pytest.raises(WrongTypeError, match=r"model is 'emoji'; .*denoscope.load\('emoji'\)"):
        trace("emoji", ["a cat"], seeds=[0])
