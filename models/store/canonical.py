"""What can be told in JSON and nothing else, and one hash of it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import UsageError


def plain_json(value: Any, what: str) -> Any:
    """Return a value as JSON gives it back: mappings as dicts, tuples as lists.

    Args:
        value: text, numbers, truth values, None, and lists and mappings of them.
        what: how to call it in an error.

    Raises:
        UsageError: for anything else, which JSON would refuse or change silently.
    """
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                raise UsageError(f"{what} has the name {name!r}, which is no text; write {str(name)!r}")
        return {name: plain_json(part, f"{what}[{name!r}]") for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(part, f"{what}[{i}]") for i, part in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"{what} is {value}, which JSON does not know; write it as text")
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise UsageError(
        f"{what} is {value!r} ({type(value).__name__}), which is no JSON; "
        "give text, numbers, lists or mappings of them, or a hash of it"
    )


def json_hash(value: Any) -> str:
    """Return a hash of JSON that does not depend on the order of names."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def differences(there: Any, here: Any, name: str = "") -> Iterator[str]:
    """Tell what differs between two values of JSON, name by name."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        for part in sorted({*there, *here}):
            yield from differences(there.get(part), here.get(part), f"{name}.{part}" if name else part)
    elif there != here:
        yield f"{name} is {_short(there)} there and {_short(here)} here"


def _short(value: Any) -> str:
    shown = "none" if value is None else json.dumps(value)
    return shown if len(shown) <= 40 else f"{shown[:17]}..."
