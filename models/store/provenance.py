"""Where a result came from."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..base import Model


def provenance(model: Model, **settings: Any) -> dict[str, Any]:
    """Return what is needed to say where a result came from: model, scheduler, settings, versions."""
    versions = {p: version(p) for p in ("denoscope", "torch", "diffusers", "transformers")}
    return {
        "model": model.name,
        "scheduler": type(model.scheduler).__name__,
        **settings,
        "versions": versions,
    }
