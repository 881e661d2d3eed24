"""Which layers a method changes that is told: found once for a model, drawn at random, or all."""

from __future__ import annotations

import random
from collections.abc import Sequence

from torch import Tensor

from ..analysis.localisation.layer_prompts import locogen, reading_layers
from ..analysis.metrics import text_fit
from ..models.progress import quiet
from ..models.site import Site
from ..models.store.store import Store
from .methods import Method, Requests
from .planning import Plan

WIDEST = 2
"""So many neighbouring layers are changed, as LocoEdit does."""


def layers_for(plan: Plan, store: Store, method: Method, requests: Requests) -> list[Site]:
    """Return the layers that a method is told to change.

    Args:
        plan: of the benchmark.
        store: where what was located is kept.
        method: says where it changes: what ``located`` finds, as many neighbours drawn at random (by the
            requests, so that another edit has others), or all.
        requests: what the edit is asked for.
    """
    if method.where == "found":
        return located(plan, store)
    layers = _outputs(reading_layers(plan.model))
    if method.where == "all":
        return layers
    width = min(WIDEST, len(layers))
    first = random.Random(str(sorted(requests.items()))).randrange(len(layers) - width + 1)
    return layers[first : first + width]


def located(plan: Plan, store: Store) -> list[Site]:
    """Return the two neighbouring layers that carry most from the text to the picture, by LocoGen.

    Over four concepts drawn by name and two seeds: the layers that, when they alone read what a text is to
    mean, most change the picture's fit with the text. Kept in the store.

    Raises:
        LookupError: for a model that reads no text by attention.
        ValueError: if no layer changes anything.
    """
    base = {"what": "layers", **plan.about, "judge": plan.judged_by, "seeds": list(plan.few)}

    def make() -> tuple[dict[str, Tensor], dict[str, list[str]]]:
        return {}, {"sites": [str(site) for site in _found(plan)]}

    unit = store.make({**base, "pairs": plan.voters}, make)
    return [Site(site) for site in unit.about["sites"]]


def _found(plan: Plan) -> list[Site]:
    layers = reading_layers(plan.model)
    width = min(WIDEST, len(layers))
    prompts, others = (list(texts) for texts in zip(*dict(plan.voters).items(), strict=True))
    scores = locogen(
        plan.model,
        prompts,
        others,
        seeds=plan.few,
        metric=text_fit(plan.judge),
        widest=width,
        steps=plan.steps,
        guidance=plan.guidance,
        progress=quiet,
    )
    mean = scores.mean().sel(window=str(width)).fillna(-float("inf"))
    names = [str(s) for s in mean["site"].values]
    first = [str(s) for s in layers].index(names[int(mean.argmax("site"))])
    return _outputs(layers[first : first + width])


def _outputs(layers: Sequence[Site]) -> list[Site]:
    """A block's own output stands for its keys and values."""
    return [Site(str(site).replace(".k_proj", ".out")) for site in layers]
