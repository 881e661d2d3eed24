"""Find the cause in the text encoders."""

from __future__ import annotations

import json
import math
from typing import Any

import xarray as xr

from ...analysis.mediation.corruption import Noise
from ...analysis.mediation.result import Mediation
from ...analysis.mediation.text_tracing import trace_text
from ...models.progress import Progress
from ..case import Setup


def text_cause(setup: Setup, progress: Progress, encoder: str | None = None) -> xr.Dataset:
    """Causal map over a text encoder: layer x kind x token; of several, over the one that carries most.

    Its attribute ``carried`` says how much each of several encoders carries, in JSON.
    """
    encoders, carried = setup.model.text_encoders, {}
    if encoder is None and len(encoders) > 1:
        carried = {name: _carried(setup, progress, name) for name in encoders}
    chosen = encoder or max(encoders, key=lambda name: carried.get(name, 0.0))
    return _trace(setup, progress, chosen).data.assign_attrs(carried=json.dumps(carried))


def _carried(setup: Setup, progress: Progress, encoder: str) -> float:
    """Share of the effect that comes back when all that one encoder says is restored."""
    words = setup.model.encode([setup.case.prompt])[0].of(encoder)
    if not words.reads(setup.case.about):
        return 0.0
    depth = len(setup.model.sites(f"{encoder}/layer.*/resid.post"))
    everything = {
        "kinds": ["resid.post"],
        "layers": [0],
        "window": 2 * depth,
        "tokens": [range(len(words.tokens))],
    }
    share = float(_trace(setup, progress, encoder, **everything).normalised.mean().max())
    return share if math.isfinite(share) else 0.0


def _trace(setup: Setup, progress: Progress, encoder: str, **states: Any) -> Mediation:
    return trace_text(**text_call(setup, encoder), **states, progress=progress)


def text_call(setup: Setup, encoder: str) -> dict[str, Any]:
    """Return what ``trace_text`` is given."""
    q = setup.case
    return {
        "model": setup.model,
        "prompts": [q.prompt],
        "subject": q.about,
        "metric": setup.metric,
        "corruption": Noise(draws=q.draws),
        "encoder": encoder,
        **setup.run,
    }
