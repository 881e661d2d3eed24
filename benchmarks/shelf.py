"""Small results of long studies, kept beside the pages: a study begun on one machine goes on on another."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import pages
import xarray as xr
from faster import bfloat16

from denoscope.models.store.canonical import json_hash
from denoscope.models.store.disk import write_bytes

Result = TypeVar("Result")


def shelved(study: str, of: Any, name: str, kind: type[Result], make: Callable[[], Result]) -> Result:
    """A result, from benchmarks/found if it is there.

    Args:
        study: a folder's name.
        of: what it depends on, JSON: weights, sizes.
        name: of the file.
        kind: what it is, of one dataset.
        make: measures it.
    """

    def plain() -> Any:
        with bfloat16():
            made: Any = make()
        return made.data.to_dict()

    return kind(xr.Dataset.from_dict(shelved_json(study, of, name, plain)))  # type: ignore[call-arg]


def shelved_json(study: str, of: Any, name: str, make: Callable[[], Any]) -> Any:
    """The same for what is JSON already."""
    path = pages.ROOT / "benchmarks" / "found" / study / json_hash(of)[:12] / f"{name}.json"
    if not path.is_file():
        made = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, json.dumps(made).encode())
    return json.loads(path.read_text())
