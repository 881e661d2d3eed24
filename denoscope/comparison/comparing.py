"""Two models side by side: the same prompts and seeds, what differs inside, and what of it matters."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
import xarray as xr
from torch import Tensor

from ..analysis.localisation.comparing import compare
from ..analysis.localisation.side_by_side import Changed
from ..analysis.metrics import Metric, latent_distance
from ..models.arguments import checked
from ..models.base import Model
from ..models.images import to_array
from ..models.progress import Progress, called, showing
from ..models.site import Site
from ..probes.sweep.sweeping import SweepRun, sweep
from .result import ComparedModels
from .weighing import differing, weights_of


@checked
def compare_models(  # noqa: PLR0913  # one experiment, all its settings by name
    model: Model,
    other: Model | Changed,
    prompts: Sequence[str],
    *,
    seeds: Sequence[int],
    metric: Metric | None = None,
    sites: Sequence[Site | str] | Site | str | None = None,
    steps: int = 20,
    guidance: float | None = None,
    batch: int = 16,
    progress: Progress | None = None,
) -> ComparedModels:
    """Compare two models of one architecture: pictures of the same seeds, weights, activations, causes.

    What ``denoscope.analysis.localisation.compare`` finds site by site (how alike both are at each step, and
    how much of the second one's picture a site brings when it is swapped into the first), beside the pictures
    of both and the weights that differ. One copy of the first model's weights is held in main memory.

    Args:
        model: the first model.
        other: the second: a model of the same architecture with the same scheduler, or what makes the first
            into it for a while, like ``edit.applied``.
        prompts: texts, each once.
        seeds: each prompt is run with each.
        metric: scores finished runs; None is how far the latents are from the first model's.
        sites: which are compared; None is the text as it is given, and all that each layer adds.
        steps: of a run.
        guidance: of both; None is the first model's default.
        batch: samples in one batch.
        progress: called with (done, total, what); without it a bar comes by itself.

    Raises:
        ValueError: for models of other architectures or schedulers, and runs that cannot be made.
        LookupError: for unknown sites.

    >>> from denoscope.editing import quickfix
    >>> from denoscope.models.synthetic.tiny import tiny_sd
    >>> model = load(tiny_sd())
    >>> edit = quickfix(model, {"cat": "dog"})
    >>> found = compare_models(model, edit.applied, ["a cat"], seeds=[0], steps=2)
    >>> found.weights()["weight"].tolist() == list(edit.deltas)
    True
    """
    how: dict[str, Any] = {"steps": steps, "guidance": guidance, "batch": batch}
    with showing(progress) as show:
        found = compare(
            model, other, prompts, seeds=seeds, metric=metric or latent_distance(), sites=sites,
            progress=called(show, "swapping sites"), **how,
        )  # fmt: skip
        runs = [SweepRun(p, s) for p in prompts for s in seeds]
        first = sweep(model, runs, progress=called(show, "painting"), **how).latents
        kept = weights_of(model)
        context = nullcontext(other) if isinstance(other, Model) else other(model)
        with context as opened:
            second_model = opened if isinstance(opened, Model) else model
            second = sweep(second_model, runs, progress=called(show, "painting"), **how).latents
            weights = differing(kept, second_model)
            images = [_painted(m, x, batch) for m, x in ((model, first), (second_model, second))]
    data = found.data.assign(
        pictures=xr.concat([to_array(x).rename(sample="picture") for x in images], "model"),
        changed=("weight", weights["relative"].to_numpy()),
        size=("weight", weights["size"].to_numpy()),
    ).assign_coords(weight=weights["weight"].to_numpy(dtype=str), model=["first", "second"])
    name = other.name if isinstance(other, Model) else "the changed model"
    return ComparedModels(data.assign_attrs(other=name, guidance=found.data.attrs["guidance"]))


@torch.no_grad()
def _painted(model: Model, latents: Tensor, batch: int) -> Tensor:
    parts = [model.decode(some).float().cpu() for some in torch.split(latents, batch)]
    return torch.cat(parts)
