"""All changes that the analyses of an investigation offer."""

from __future__ import annotations

from collections.abc import Mapping

import xarray as xr

from ...analysis.features.bias_result import BiasFeatures
from ...analysis.mediation.result import Mediation
from ...models.progress import Progress
from ...probes.dictionary import Dictionary
from ..case import Setup
from ..stages.information import SKIPPED
from . import by_directions, by_features, by_information, by_mediation
from .ground import Ground, Offers


def offers(
    setup: Setup, found: Mapping[str, xr.Dataset], dictionary: Dictionary | None, progress: Progress
) -> Offers:
    """Return what the analyses offer, and what none of them could.

    Args:
        setup: of the case.
        found: the stages' results by name.
        dictionary: whose features were looked at.
        progress: called with (done, total, what).
    """
    ground, made, analyses = Ground(setup, progress), Offers(), setup.case.looked_by
    text, denoiser = (Mediation(found[n]) if n in found else None for n in ("text", "denoiser"))
    if "mediation" in analyses:
        by_mediation.offer(ground, text, denoiser, made)
    by_mediation.by_method(ground, made)
    for name in ("information", "features"):
        if name in found and SKIPPED in found[name].attrs:
            made.skipped.append((name, str(found[name].attrs[SKIPPED])))
    told = {n: found[n] for n in ("information", "features") if n in found and SKIPPED not in found[n].attrs}
    by_information.offer(ground, told.get("information"), made)
    features = BiasFeatures(told["features"]) if "features" in told else None
    by_features.offer(ground, features, dictionary, made)
    if "directions" in analyses:
        by_directions.offer(ground, denoiser, made)
    return _apart(made)


def _apart(made: Offers) -> Offers:
    """Each edit once: where two analyses come to the same, it is the first one's."""
    found, left = dict[str, str](), Offers(skipped=made.skipped)
    for change in made.changes:
        same = change.edit and found.get(change.edit.id)
        if same:
            left.skipped.append((change.analysis, f"{change.name} is the same as {same}"))
            continue
        if change.edit:
            found[change.edit.id] = change.name
        left.changes.append(change)
    return left
