"""Where a result came from."""

from __future__ import annotations

import functools
import math
import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from .fingerprint import fingerprint
from .numerics import NUMERICS

if TYPE_CHECKING:
    from ..base import Model


def provenance(model: Model, **settings: Any) -> dict[str, Any]:
    """Return what is needed to say where a result came from, and to make it again; JSON if the settings are.

    The model's name and a hash of its weights, the scheduler and its whole configuration, size, number
    format, kind of device, the settings, versions. Taken of the model as it is now, edits and adapters
    included. Older files may lack some of this.
    """
    return {
        "model": model.name,
        "weights": fingerprint(model),
        "scheduler": type(model.scheduler).__name__,
        "scheduler_config": scheduler_config(model.scheduler),
        "size": list(model.size),
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": model.device.type,
        **settings,
        "numerics": NUMERICS,
        "versions": dict(_versions()),
    }


def machine() -> dict[str, str]:
    """Return what computes: versions, and the processor's kind."""
    return {**dict(_versions()), "processor": platform.machine()}


def scheduler_config(scheduler: Any) -> dict[str, Any]:
    """Return a scheduler's configuration as JSON holds it; infinities as text, as JSON knows none."""
    return {k: plain(v) for k, v in sorted(scheduler.config.items()) if not k.startswith("_")}


@functools.cache
def _versions() -> tuple[tuple[str, str], ...]:
    packages = ("denoscope", "torch", "diffusers", "transformers")
    return (("python", platform.python_version()), *((p, version(p)) for p in packages))


def plain(value: Any) -> Any:
    """Return a configuration's value as JSON holds it; what it does not know as text."""
    if hasattr(value, "tolist"):  # arrays, tensors, numbers of numpy
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, list | tuple) else repr(value)
