"""What JSON of a file has to look like, and what is said of other JSON."""

from __future__ import annotations

import re
from typing import Any

import pytest

from denoscope.models.store.schema import check_schema, read_json

SCHEMA = {
    "steps": [{"index": int, "t": float}],
    "size": (int, int),
    "key": re.compile("[0-9a-f]{4}"),
    "about": {str: object},
    "mask?": bool | None,
}
FITS = {"steps": [{"index": 0, "t": 3}], "size": [8, 8], "key": "0af1", "about": {"a": [1]}}


def test_what_fits_passes() -> None:
    check_schema(FITS, SCHEMA, "it")
    check_schema({**FITS, "mask": True, "steps": []}, SCHEMA, "it")
    check_schema({**FITS, "mask": None}, SCHEMA, "it")


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"steps": {}}, r"it\['steps'\] is {}, not a list"),
        ({"steps": [{"index": 0, "t": "x"}]}, r"it\['steps'\]\[0\]\['t'\] is 'x', not float"),
        ({"steps": [{"index": True, "t": 1}]}, r"it\['steps'\]\[0\]\['index'\] is True, not int"),
        ({"steps": [{"index": 0.5, "t": 1}]}, r"is 0.5, not int"),
        ({"steps": [{"t": 1}]}, r"it\['steps'\]\[0\] lacks index; it is made of index, t"),
        ({"steps": [3]}, r"it\['steps'\]\[0\] is 3, not a mapping"),
        ({"size": [8]}, r"it\['size'\] is \[8\], not a list of 2"),
        ({"size": "88"}, r"it\['size'\] is '88', not a list of 2"),
        ({"key": "0AF1"}, r"it\['key'\] is '0AF1', not text like"),
        ({"key": 3}, r"it\['key'\] is 3, not text like"),
        ({"about": [1]}, r"it\['about'\] is \[1\], not a mapping"),
        ({"mask": 1}, r"it\['mask'\] is 1, not bool"),
        ({"other": 1}, r"it has other; it is made of steps, size, key, about, mask"),
        ({"key": "x" * 100}, r"it\['key'\] is 'x{56}\.\.\., not text"),
    ],
)
def test_what_does_not_fit_is_named(part: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_schema({**FITS, **part}, SCHEMA, "it")


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, b"\xff\xfe\x00", "nothing"])
def test_no_json_is_an_error_of_ours(text: str | bytes) -> None:
    with pytest.raises(ValueError, match="it is (no JSON|nested too deep)"):
        read_json(text, object, "it")
