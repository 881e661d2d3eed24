"""A direction as a file: vectors, axes, rows of a text, and where it came from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from torch import Tensor

from ...models.adapter import Adapter
from ...models.errors import DenoscopeError, UsageError
from ...models.site import Site
from ...models.store.canonical import plain_json
from ...models.store.fingerprint import fingerprint
from ...models.store.schema import check_schema
from ...models.store.tensor_file import TensorFile
from .token_rows import TokenRows

FILE = TensorFile(
    "direction",
    2,
    {"axes": {str: int | None}, "sites": [str], "rows?": object, "about?": {str: object}},
    "Direction.save",
)
Parts: TypeAlias = tuple[dict[Site, Tensor], dict[Site, int | None], TokenRows | None, Mapping[str, Any]]
"""Vectors, axes, rows, about."""


def write(path: Path, parts: Parts) -> None:
    """Write one safetensors file; it is whole, or not there."""
    vectors, axes, rows, about = parts
    flat = {str(site): v for site, v in vectors.items()}
    told: dict[str, Any] = {"axes": {str(s): axes[s] for s in vectors}, "sites": list(flat)}
    if rows:
        told["rows"] = {"kinds": list(rows.kinds), "subject": rows.subject}
    if about:
        told["about"] = plain_json(dict(about), "about")
    FILE.write(path, flat, told)


def read(path: Path, model: Adapter | None) -> Parts:
    """Read what ``write`` wrote, of a model's weights if one is given."""
    flat, told = FILE.read(path)
    if not set(flat) == set(told["axes"]) == set(told["sites"]):
        raise FILE.damaged(path, f"it holds {sorted(flat)} and tells of {told['sites']}")
    about = told.get("about", {})
    if model is not None:
        _check_weights(path, about, model)
    axes = {Site(site): axis for site, axis in told["axes"].items()}
    return {Site(site): flat[site] for site in told["sites"]}, axes, _rows(path, told.get("rows")), about


def _rows(path: Path, told: Any) -> TokenRows | None:
    if told is None:
        return None
    try:
        check_schema(told, {"kinds": [str], "subject": str | None}, "rows")
        return TokenRows(tuple(told["kinds"]), told["subject"])
    except DenoscopeError as error:
        raise FILE.damaged(path, str(error)) from error


def _check_weights(path: Path, about: Mapping[str, Any], model: Adapter) -> None:
    known, now = about.get("weights"), fingerprint(model)  # type: ignore[arg-type]
    if known is not None and known != now:
        raise UsageError(
            f"the direction in {str(path)!r} was found in {about.get('model')!r} with other weights than "
            f"those of {model.name!r} (another model, or edited since); find it anew, or, to try what it "
            "does there nevertheless, Direction.load(path).noted(weights=None)"
        )
