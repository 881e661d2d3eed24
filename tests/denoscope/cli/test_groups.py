"""Groups of options are spelled out."""

from __future__ import annotations

import inspect
from dataclasses import dataclass

from denoscope.cli.groups import expanded


@dataclass(frozen=True)
class Group:
    """Two options."""

    a: int = 1
    b: str = "x"


def test_a_group_stands_for_its_fields_with_the_defaults_of_its_value():
    got = []

    def command(word: str, *, group: Group = Group(a=5)) -> None:
        got.append((word, group))

    spelled = expanded(command)
    found = inspect.signature(spelled).parameters
    assert {n: (p.annotation, p.default) for n, p in found.items() if n != "word"} == {
        "a": (int, 5),
        "b": (str, "x"),
    }
    spelled(word="w", a=7, b="y")
    assert got == [("w", Group(7, "y"))]
