"""Groups of options: a dataclass in a command's signature stands for one option a field."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from functools import wraps
from typing import Any, get_type_hints


def expanded(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command whose groups of options are spelled out, as typer reads them.

    Args:
        command: its parameters may be annotated with dataclasses of ``Annotated`` options; their default is
            the group whose fields are the options' defaults.
    """
    hints = get_type_hints(command, include_extras=True)
    groups = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    own = inspect.signature(command).parameters.values()
    spelled = [option for p in own for option in _options(p, hints[p.name], groups)]

    @wraps(command)
    def call(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{f.name: given.pop(f.name) for f in fields(group)})  # type: ignore[operator]
        command(**given)

    call.__signature__ = inspect.Signature(spelled)  # type: ignore[attr-defined]
    call.__annotations__ = {p.name: p.annotation for p in spelled}
    return call


def _options(parameter: inspect.Parameter, hint: Any, groups: dict[str, Any]) -> Iterator[inspect.Parameter]:
    keyword = parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
    if parameter.name not in groups:
        yield keyword.replace(annotation=hint)
        return
    hints = get_type_hints(hint, include_extras=True)
    for f in fields(hint):
        default = getattr(parameter.default, f.name)
        yield keyword.replace(name=f.name, annotation=hints[f.name], default=default)
