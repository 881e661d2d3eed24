"""What differs between two models of one architecture: where activations part, and which of it matters.

Base against LoRA, edit, fine-tuned or distilled. Interchange interventions (Geiger et al. 2021,
arXiv:2106.02997) with models in the place of prompts: the first model paints, one of its sites has what the
second one computes there, and the metric says how much of the second one's picture that brings.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr

from ...models.arguments import checked
from ...models.base import Model
from ...models.errors import UsageError
from ...models.progress import Progress, showing
from ...models.run.context import TEXT
from ...models.run.sampling import Sampling, SamplingOptions
from ...models.site import Site
from ...models.sites import site_shapes
from ...models.store.provenance import provenance, scheduler_config
from ...probes.trace import expand
from ..mediation.choice import denoiser_sites, step_windows, window_name
from ..mediation.runs import check_each_once
from ..metrics import Metric
from .bootstrap import Array
from .comparison import Comparison
from .scoring import score_runs
from .side_by_side import Changed, Pair, SideBySide


@checked
def compare(  # noqa: PLR0913  # one experiment, all its settings by name
    model: Model,
    other: Model | Changed,
    prompts: Sequence[str],
    *,
    seeds: Sequence[int],
    metric: Metric,
    sites: Sequence[Site | str] | Site | str | None = None,
    windows: Sequence[Collection[int]] | None = None,
    latents: Literal["same", "own"] = "same",
    steps: int = 20,
    guidance: float | None = None,
    batch: int = 16,
    progress: Progress | None = None,
) -> Comparison:
    """Say at each site and step how alike two models are, and what swapping the site in brings.

    Sites are swapped one at a time, in all guidance branches, at all steps or in each of some windows.
    Swapped at ``*/out/eps``, which covers the output, the picture is that of the second model. An edit of a
    text encoder is seen where the denoiser is given the text (``*/in/text``, ``*/in/pooled``, there by
    default), and layer by layer if its own sites are asked for, which act through the encoded text.

    Args:
        model: the first model, which paints.
        other: the second: a model of the same architecture, with the same scheduler, or what makes the first
            into it for a while, like ``edit.applied``; that is entered anew for each step.
        prompts: texts, read by both.
        seeds: each prompt is run with each seed.
        metric: scores finished runs; ``clean`` is the first model's picture.
        sites: of the denoiser or of text encoders; None is the text as the denoiser is given it, and all
            that each layer adds to the stream.
        windows: sets of step indices, like ``[range(0, 5), range(5, 20)]``; None is all steps.
        latents: ``"same"`` shows the second model the very latents that the first has at each step, so that
            only networks differ; ``"own"`` takes its activations from a run of its own, with what its own
            latents look like.
        steps: number of sampling steps.
        guidance: guidance scale of both; None is the first model's default.
        batch: samples in one batch.
        progress: called with (done, total, what); without it a bar comes by itself.

    Returns:
        A Comparison. Its cosines are those of the branch that reads the prompt.

    Raises:
        ValueError: for models whose sites, shapes or schedulers differ, which the message names; for sites of
            text encoders in windows, and for runs that cannot be made.
        LookupError: for unknown sites.
        TypeError: if ``other`` is neither a model nor gives a context.
    """
    check_each_once("prompts", prompts)
    check_each_once("seeds", seeds)
    if latents not in ("same", "own"):
        raise UsageError(f"latents is {latents!r}; it is 'same' (the first model's) or 'own'")
    if batch < 1:
        raise UsageError(f"batch is {batch}; it holds at least 1 sample")
    guidance = model.default_guidance if guidance is None else guidance
    how: SamplingOptions = {"steps": steps, "guidance": guidance}
    places = _places(model, sites, windows)
    whens = [replace(w, branch=None) for w in step_windows(windows, len(model.steps(steps)))]
    pair = Pair(model, other, how, latents == "own")
    with pair.other() as second:
        _check_alike(model, second)
        about = {"second": provenance(second)["weights"]}
    swaps = list(product(places, whens))
    alike = np.empty((2, len(places), len(model.steps(steps)), len(prompts), len(seeds)))
    scores = np.empty((2 + len(swaps), len(prompts), len(seeds)))
    cells = list(product(range(len(prompts)), range(len(seeds))))
    with showing(progress) as show:
        for i, (p, s) in enumerate(cells):
            study = SideBySide(pair, prompts[p], seeds[s], places)
            alike[..., p, s], *ends = study.alike()
            for first in range(0, len(swaps), batch):
                ends.append(study.swapped(swaps[first : first + batch]))
                show(i * len(swaps) + min(first + batch, len(swaps)), len(cells) * len(swaps), "swaps")
            found = score_runs(model, metric, torch.cat(ends), study.here[0], seeds=1, batch=batch)
            scores[:, p, s] = found[:, 0]
    about |= provenance(model, **Sampling(**how).described(model), latents=latents, rows=pair.rows,
                        metric=getattr(metric, "__name__", repr(metric)))  # fmt: skip
    columns = None if windows is None else [window_name(w) for w in whens]
    return Comparison(_labelled(places, columns, alike, scores, prompts, seeds, about))


def _labelled(  # noqa: PLR0917  # the axes, as compare has them
    places: Sequence[Site],
    columns: Sequence[str] | None,
    alike: Array,
    scores: Array,
    prompts: Sequence[str],
    seeds: Sequence[int],
    about: Mapping[str, Any],
) -> xr.Dataset:
    runs, along = ("prompt", "seed"), () if columns is None else ("window",)
    shape = (len(places), *((len(columns),) if columns is not None else ()), *scores.shape[1:])
    coords = {
        "site": [str(s) for s in places],
        "block": ("site", [s.block for s in places]),
        "kind": ("site", [s.kind for s in places]),
        "step": range(alike.shape[2]),
        "prompt": list(prompts),
        "seed": list(seeds),
    }
    data = {
        "cosine": (("site", "step", *runs), alike[0]),
        "relative": (("site", "step", *runs), alike[1]),
        "first": (runs, scores[0]),
        "second": (runs, scores[1]),
        "swapped": (("site", *along, *runs), scores[2:].reshape(shape)),
    }
    return xr.Dataset(data, coords if columns is None else {**coords, "window": list(columns)}, dict(about))


def _places(model: Model, sites: Any, windows: object) -> list[Site]:
    if sites is None:
        entry = model.input_site.component
        given = [s for s in model.places() if s in (Site(f"{entry}/in/text"), Site(f"{entry}/in/pooled"))]
        return [*given, *denoiser_sites(model, None)]
    found = expand(model, sites)
    if not found:
        raise UsageError("sites is empty; give at least one, or None for all that each layer adds")
    if windows is not None and (text := [s for s in found if s.component.startswith(TEXT)]):
        raise UsageError(
            f"{text[0]} is in a text encoder, which has no steps; leave out windows, or the site"
        )
    return found


def _check_alike(model: Model, other: Model) -> None:
    """Raise UsageError that names the first site by which two models differ."""
    if model is other:
        return
    for one, two, name in ((model, other, "first"), (other, model, "second")):
        known = two.places()
        if lost := next((s for s in one.places() if s not in known), None):
            raise UsageError(f"{lost} is in the {name} model alone; compare two models of one architecture")
    ours, theirs = site_shapes(model), site_shapes(other)
    for site, shape in ours.items():
        if theirs.get(site) != shape:
            raise UsageError(
                f"{site} is {list(shape)} in the first model and {list(theirs.get(site, ()))} in the second; "
                "compare two models of one architecture and size"
            )
    a, b = ((type(m.scheduler).__name__, scheduler_config(m.scheduler)) for m in (model, other))
    if a != b:
        keys = sorted(k for k in {*a[1], *b[1]} if a[1].get(k) != b[1].get(k))
        differ = keys or [a[0], b[0]]
        raise UsageError(
            f"the models' schedulers differ ({', '.join(differ)}), so their steps are not the same; give "
            "both the same one: other.pipe.scheduler = model.pipe.scheduler"
        )
