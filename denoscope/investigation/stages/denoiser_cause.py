"""Find the cause in the denoiser."""

from __future__ import annotations

import xarray as xr

from ...analysis.mediation.corruption import Noise
from ...analysis.mediation.denoiser_tracing import trace_denoiser
from ...models.progress import Progress
from ..case import Setup


def denoiser_cause(setup: Setup, progress: Progress) -> xr.Dataset:
    """Causal map over the denoiser: site x window of steps."""
    q = setup.case
    n = len(setup.model.steps(q.steps))
    halves = [range(n // 2), range(n // 2, n)] if n > 1 else [range(n)]
    found = trace_denoiser(
        setup.model,
        [q.prompt],
        q.about,
        metric=setup.metric,
        corruption=Noise(draws=1),
        windows=halves,
        **setup.run,
        progress=progress,
    )
    return found.data
