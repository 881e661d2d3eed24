"""A log of guidance beside the trace that it belongs to: arrays in a group, names in the manifest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from ...models.run.levels import Step
from .log import GuidanceLog

SCHEMA = {"steps": [int], "parts": [str], "numbers": [str], "rows": [int]}


def log_tensors(log: GuidanceLog) -> dict[str, Tensor]:
    """Return what a log holds, [step, sample] each, by the names that ``log_of`` looks for."""
    return {
        "output": log.output,
        **{f"length.{i}": x for i, x in enumerate(log.lengths.values())},
        **{f"cosine.{i}": log.cosines[part] for i, part in enumerate(log.lengths)},
        **{f"number.{i}": x for i, x in enumerate(log.numbers.values())},
    }


def log_told(log: GuidanceLog) -> dict[str, Any]:
    """Return what the manifest says of a log."""
    return {
        "steps": [s.index for s in log.steps],
        "parts": list(log.lengths),
        "numbers": list(log.numbers),
        "rows": list(log.rows),
    }


def log_of(told: Mapping[str, Any], read: Callable[[str], Tensor], steps: Sequence[Step]) -> GuidanceLog:
    """Return the log again; ``read`` takes one of the names of ``log_tensors``."""
    by_index = {s.index: s for s in steps}
    return GuidanceLog(
        tuple(by_index[i] for i in told["steps"]),
        read("output"),
        {part: read(f"length.{i}") for i, part in enumerate(told["parts"])},
        {part: read(f"cosine.{i}") for i, part in enumerate(told["parts"])},
        {name: read(f"number.{i}") for i, name in enumerate(told["numbers"])},
        tuple(told["rows"]),
    )
