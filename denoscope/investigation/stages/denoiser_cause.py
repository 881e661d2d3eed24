"""Find the cause in the denoiser."""

from __future__ import annotations

from typing import Any

import xarray as xr

from ...analysis.mediation.corruption import Noise
from ...analysis.mediation.denoiser_tracing import trace_denoiser
from ...models.progress import Progress
from ..case import Setup


def denoiser_cause(setup: Setup, progress: Progress) -> xr.Dataset:
    """Causal map over the denoiser: site x window of steps."""
    return trace_denoiser(**denoiser_call(setup), progress=progress).data


def denoiser_call(setup: Setup) -> dict[str, Any]:
    """Return what ``trace_denoiser`` is given."""
    q = setup.case
    n = len(setup.model.steps(q.steps))
    halves = [range(n // 2), range(n // 2, n)] if n > 1 else [range(n)]
    return {
        "model": setup.model,
        "prompts": [q.prompt],
        "subject": q.about,
        "metric": setup.metric,
        "corruption": Noise(draws=1),
        "windows": halves,
        **setup.run,
    }
