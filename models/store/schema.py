"""What JSON from a file has to look like, so that a foreign or damaged one is refused before it is used."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, get_args

from ..errors import UsageError

Schema = Any
"""A type; a pattern, for text; ``[s]``: any number of s; ``(s, t)``: these; ``{"name": s}``: these names, one
that ends in "?" may be missing; ``{str: s}``: any (other) names; ``object``: anything."""


def read_json(text: str | bytes, schema: Schema, what: str) -> Any:
    """Return JSON that fits a schema.

    Args:
        text: the JSON.
        schema: what it has to look like.
        what: how to call it in an error.

    Raises:
        UsageError: if it is no JSON, nested too deep, or does not fit; it names the place.

    >>> read_json('{"steps": [1, 2]}', {"steps": [int]}, "the note")
    {'steps': [1, 2]}
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise UsageError(f"{what} is nested too deep") from None
    except ValueError as error:
        raise UsageError(f"{what} is no JSON ({error})") from error
    check_schema(value, schema, what)
    return value


def check_schema(value: Any, schema: Schema, what: str) -> None:
    """Raise UsageError if a value of JSON does not fit a schema."""
    if isinstance(schema, re.Pattern):
        if not isinstance(value, str) or not schema.fullmatch(value):
            raise _wrong(value, what, f"text like {schema.pattern}")
    elif isinstance(schema, list | tuple):
        if not isinstance(value, list) or (isinstance(schema, tuple) and len(value) != len(schema)):
            raise _wrong(value, what, f"a list of {len(schema)}" if isinstance(schema, tuple) else "a list")
        parts = schema if isinstance(schema, tuple) else schema * len(value)
        for i, (part, each) in enumerate(zip(value, parts, strict=True)):
            check_schema(part, each, f"{what}[{i}]")
    elif isinstance(schema, dict):
        if not isinstance(value, Mapping):
            raise _wrong(value, what, "a mapping")
        for name, part in _names(value, schema, what).items():
            check_schema(value[name], part, f"{what}[{name!r}]")
    elif not _is(value, schema):
        raise _wrong(value, what, getattr(schema, "__name__", str(schema)))


def _names(value: Mapping[str, Any], schema: Mapping[Any, Schema], what: str) -> dict[str, Schema]:
    """The schema of each name that is there."""
    rest = {name: schema[str] for name in value if name not in schema} if str in schema else {}
    known = {name.removesuffix("?"): part for name, part in schema.items() if name is not str} | rest
    lacking = sorted(n for n in schema if n is not str and not n.endswith("?") and n not in value)
    foreign = sorted(set(value) - set(known))
    if lacking or foreign:
        found = f"lacks {', '.join(lacking)}" if lacking else f"has {', '.join(foreign)}"
        raise UsageError(f"{what} {found}; it is made of {', '.join(known)}")
    return {name: known[name] for name in value}


def _is(value: Any, kind: Any) -> bool:
    kinds = set(get_args(kind) or (kind,))
    if float in kinds:
        kinds.add(int)
    if isinstance(value, bool):  # which Python counts as a number
        return not kinds.isdisjoint((bool, object))
    return isinstance(value, tuple(kinds))


def _wrong(value: Any, what: str, wanted: str) -> UsageError:
    shown = repr(value)
    shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
    return UsageError(f"{what} is {shown}, not {wanted}")
