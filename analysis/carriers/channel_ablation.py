"""What is lost without some channels of a stream: see ``channels``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from ...models.arguments import checked
from ...models.base import Model
from ...models.errors import UsageError
from ...models.progress import Progress
from ...models.run.context import CallContext
from ...models.run.sampling import Sampling, SamplingOptions
from ...models.site import Site
from ...models.store.provenance import provenance
from ...probes.intervene import Intervention
from ...probes.sweep.sweeping import SweepRun, sweep
from ...probes.trace import trace
from ..localisation.scoring import score_prompts
from ..mediation.runs import check_each_once
from ..metrics import Metric
from ..scores import Scores
from .channels import Channels

WAYS = ("mean", "resample", "zero")
"""The mean of the step over all runs; the same channels of another prompt's run; nothing."""
GROUPS = ("top", "others", "energy")
"""The largest; as many others, at random; the next ones, up to the energy of the largest."""


@checked
def channels_ablated(  # noqa: PLR0913  # one experiment, all its settings by name
    model: Model,
    channels: Channels,
    prompts: Sequence[str],
    *,
    seeds: Sequence[int],
    metric: Metric,
    k: int = 3,
    steps: int = 20,
    guidance: float | None = None,
    batch: int = 16,
    progress: Progress | None = None,
) -> Scores:
    """Return how much of the metric is lost when some channels of a site are replaced at all steps.

    Args:
        model: the model that ``channels`` were measured on.
        channels: of ``outlier_channels``, with the same number of steps; its sites are taken in turn.
        prompts: at least two; the next one in order is the other prompt of ``resample``.
        seeds: each prompt is run with each seed.
        metric: scores finished runs.
        k: how many channels are the largest.
        steps: number of sampling steps.
        guidance: guidance scale; None is the model's default.
        batch: samples in one batch of the denoiser.
        progress: called with (done, total, what); without it a bar comes by itself.

    Returns:
        Scores of clean - ablated with dims site, channels (``GROUPS``), way (``WAYS``), prompt, seed.

    Raises:
        ValueError: for one prompt alone, channels measured at other steps, and k that leaves no others.
        LookupError: for sites that the model does not have.
    """
    check_each_once("prompts", prompts)
    check_each_once("seeds", seeds)
    how: SamplingOptions = {
        "steps": steps,
        "guidance": model.default_guidance if guidance is None else guidance,
    }
    _check(channels, prompts, k, len(model.steps(steps)))
    groups = {site: _groups(channels, site, k) for site in channels.data}
    others = _others(model, channels, prompts, seeds, how)
    cells = list(product(channels.data, GROUPS, WAYS))
    pairs = list(product(range(len(prompts)), range(len(seeds))))
    runs = [SweepRun(prompts[p], seeds[s]) for p, s in pairs]
    for site, group, way in cells:
        ids = groups[site][group]
        for p, s in pairs:
            fill = _filled(channels, site, way, others, (p, s))
            runs.append(SweepRun(prompts[p], seeds[s], (_replaced(model, site, ids, fill),)))
    made = sweep(model, runs, batch=batch, progress=progress, **how)
    latents = made.latents.unflatten(0, (1 + len(cells), len(prompts), len(seeds)))
    with torch.no_grad():
        read = model.encode(list(prompts))
    scores = score_prompts(model, metric, latents, read, batch=batch)
    lost = (scores[:1] - scores[1:]).reshape(len(channels.data), len(GROUPS), len(WAYS), *scores.shape[1:])
    about = provenance(model, **Sampling(**how).described(model), rows=made.rows, k=k,
                       metric=getattr(metric, "__name__", repr(metric)))  # fmt: skip
    coords = {
        "site": list(channels.data),
        "channels": list(GROUPS),
        "way": list(WAYS),
        "prompt": list(prompts),
        "seed": list(seeds),
    }
    return Scores(xr.DataArray(lost, coords, tuple(coords), attrs=about))


Fill = Callable[[CallContext], Tensor]
"""What stands in place of all channels at a step: [channel], or [channel, position]."""
States = Mapping[tuple[int, int], Mapping[Site, Tensor]]


def _groups(channels: Channels, site: str, k: int) -> dict[str, list[int]]:
    """The channels of each group; what is drawn is drawn by the site's name."""
    energy = channels.energies(site)
    order = channels.top(site, len(energy))
    top, rest = order[:k], order[k:]
    wanted, matched = energy[top].sum(), list[int]()
    for i in rest:
        if energy[matched].sum() >= wanted:
            break
        matched.append(i)
    drawn = np.random.default_rng(list(site.encode())).permutation(rest)[:k]
    return {"top": top, "others": [int(i) for i in drawn], "energy": matched}


def _others(
    model: Model, channels: Channels, prompts: Sequence[str], seeds: Sequence[int], how: SamplingOptions
) -> States:
    """The states of each prompt's run with each seed, [step, 1, ...]."""
    found = {}
    for p, s in product(range(len(prompts)), range(len(seeds))):
        run = trace(model, [prompts[p]], seeds=[seeds[s]], sites=list(channels.data), progress=_quiet, **how)
        found[p, s] = {site: run[site][:, 0] for site in run}
    return found


def _quiet(done: int, total: int, what: str, /) -> None:
    """No bar: each run is short, and the sweep has its own."""


def _filled(channels: Channels, site: str, way: str, others: States, pair: tuple[int, int]) -> Fill:
    def step_of(context: CallContext) -> int:
        return context.step.index if context.step else 0

    if way == "mean":
        means = channels.step_means(site)
        return lambda context: means[step_of(context)]
    p, s = pair
    prompts = 1 + max(p for p, _ in others)
    other = others[(p + 1) % prompts, s][Site(site)]
    if way == "zero":
        return lambda _: other.new_zeros(())
    return lambda context: other[step_of(context)]


def _replaced(model: Model, site: str, ids: Sequence[int], fill: Fill) -> Intervention:
    axis = model.layout(site).channel_axis or 1

    def fn(x: Tensor, context: CallContext) -> Tensor:
        new = x.movedim(axis, 1).clone()
        value = fill(context).to(x)
        if value.ndim > 1:  # a whole state, without its row
            value = value.movedim(axis - 1, 0)[ids]
        elif value.ndim:
            value = value[ids].view(-1, *[1] * (new.ndim - 2))
        new[:, list(ids)] = value
        return new.movedim(1, axis)

    return Intervention(Site(site), fn)


def _check(channels: Channels, prompts: Sequence[str], k: int, n_steps: int) -> None:
    if len(prompts) < 2:
        raise UsageError(f"prompts is {list(prompts)!r}; give two or more, for the state of another one")
    for site, data in channels.data.items():
        if data.sizes["step"] != n_steps:
            raise UsageError(
                f"the channels were measured over {data.sizes['step']} steps, and this run has {n_steps}; "
                "measure and ablate with the same steps"
            )
        if not 0 < 2 * k <= data.sizes["channel"]:
            raise UsageError(
                f"k is {k}, and {site} has {data.sizes['channel']} channels; give 1 to half of them"
            )
