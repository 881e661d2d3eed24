"""Head ablation: what does the picture lose without one head of one attention?

Each head's values, before they are mixed (``z``), are replaced by their mean over other prompts, position by
position and step by step, or by zero, and the metric is taken again. Mean ablation takes out what the head
says of this prompt; zero ablation takes its constant part as well, which no picture of the model lacks
(Michel et al. 2019, arXiv:1905.10650, by zero; Wang et al. 2022, arXiv:2211.00593, section 2.1, by the mean).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from ...models.arguments import checked
from ...models.base import Model
from ...models.errors import UsageError
from ...models.progress import Progress, part, showing
from ...models.run.sampling import Sampling, SamplingOptions
from ...models.site import Site
from ...models.store.provenance import provenance
from ...probes.intervene import patch
from ...probes.sweep.sweeping import SweepRun, sweep
from ...probes.trace import trace
from ..mediation.choice import denoiser_sites
from ..mediation.runs import check_each_once
from ..metrics import Metric
from ..scores import Scores
from .bootstrap import Array
from .scoring import score_runs

Heads = list[tuple[Site, int]]


@checked
def head_ablation(  # noqa: PLR0913  # one experiment, all its settings by name
    model: Model,
    prompts: Sequence[str],
    *,
    seeds: Sequence[int],
    metric: Metric,
    sites: Sequence[Site | str] | Site | str | None = None,
    by: Literal["mean", "zero"] = "mean",
    others: Sequence[str] | None = None,
    steps: int = 20,
    guidance: float | None = None,
    batch: int = 16,
    progress: Progress | None = None,
) -> Scores:
    """Return how far the metric falls without each head, in the guidance branch that reads the prompt.

    In joint attention a head speaks to picture and text, and is taken out for both.

    Args:
        model: an opened model.
        prompts: texts.
        seeds: each prompt is run with each seed.
        metric: scores finished runs (``analysis.metrics``).
        sites: attentions, by what their heads say (``cross_attn.z``); None is all that read the prompt.
        by: what is put in a head's place: its ``"mean"`` over runs of other prompts with the same seed, or
            ``"zero"``.
        others: these other prompts; None is those of ``prompts`` that are not the one.
        steps: number of sampling steps.
        guidance: guidance scale; None is the model's default.
        batch: samples in one batch.
        progress: called with (done, total, what); without it a bar comes by itself.

    Returns:
        Scores with dims site, head, prompt, seed: plain - ablated, in units of the metric. NaN where a site
        has fewer heads than others.

    Raises:
        ValueError: for sites without heads, a mean of no other prompts, and runs that cannot be made.
        LookupError: for unknown sites, and a model that reads no text by attention if no sites are given.
    """
    check_each_once("prompts", prompts)
    check_each_once("seeds", seeds)
    if by not in ("mean", "zero"):
        raise UsageError(f"by is {by!r}; it is 'mean' (over other prompts) or 'zero'")
    heads = heads_of(model, speaking(model) if sites is None else denoiser_sites(model, sites))
    beside = {p: _others(p, prompts, others) for p in prompts} if by == "mean" else {}
    how: SamplingOptions = {
        "steps": steps,
        "guidance": model.default_guidance if guidance is None else guidance,
    }
    with torch.no_grad():
        read = dict(zip(prompts, model.encode(list(prompts)), strict=True))
    cells = list(product(range(len(prompts)), range(len(seeds))))
    scores, rows = np.empty((1 + len(heads), len(prompts), len(seeds))), 0
    each = len(model.steps(steps)) * len(model.branch_names(how["guidance"]))
    zeros = {site: torch.zeros(len(model.steps(steps)), 1) for site, _ in heads}
    with showing(progress) as show:
        for i, (p, s) in enumerate(cells):
            prompt, seed = read[prompts[p]], seeds[s]
            instead = _means(model, heads, beside[prompts[p]], seed, how) if beside else zeros
            without = [SweepRun(prompt, seed, (patch(site, instead, heads=[h]),)) for site, h in heads]
            runs = [SweepRun(prompt, seed), *without]
            step = part(show, i * len(runs), len(runs), len(cells) * len(runs), "runs, each without a head")
            made = sweep(model, runs, batch=batch, progress=step, **how)
            scores[:, p, s] = score_runs(model, metric, made.latents, prompt, seeds=1, batch=batch)[:, 0]
            rows += made.rows + len(beside.get(prompts[p], ())) * each
    about = provenance(model, **Sampling(**how).described(model), method="head_ablation", by=by, rows=rows,
                       metric=getattr(metric, "__name__", repr(metric)))  # fmt: skip
    return by_head(heads, scores[0] - scores[1:], prompts, seeds, about)


def speaking(model: Model) -> list[Site]:
    """What the heads say through which the denoiser reads the prompt.

    Raises:
        LookupError: if it reads none by attention.
    """
    return [Site(f"{str(site).removesuffix('.probs')}.z") for site in model.reading_sites()]


def heads_of(model: Model, sites: Sequence[Site]) -> Heads:
    """Each head of each site.

    Raises:
        ValueError: for sites that are not what single heads say.
    """
    found = []
    for site in sites:
        layout = model.layout(site)
        if layout.heads is None or not site.kind.endswith(".z"):
            raise UsageError(
                f"{site} is not what single heads say; give sites like {str(speaking(model)[0])!r}, "
                "'**/self_attn.z' or '**/joint_attn.z'"
            )
        found += [(site, head) for head in range(layout.heads)]
    return found


def by_head(
    heads: Heads, values: Array, prompts: Sequence[str], seeds: Sequence[int], about: Mapping[str, Any]
) -> Scores:
    """Scores over (site, head) of values [head of a site, prompt, seed]."""
    sites = list(dict.fromkeys(site for site, _ in heads))
    found = np.full((len(sites), 1 + max(h for _, h in heads), *values.shape[1:]), np.nan)
    for (site, head), value in zip(heads, values, strict=True):
        found[sites.index(site), head] = value
    coords = {
        "site": [str(s) for s in sites],
        "block": ("site", [s.block for s in sites]),
        "kind": ("site", [s.kind for s in sites]),
        "head": range(found.shape[1]),
        "prompt": list(prompts),
        "seed": list(seeds),
    }
    return Scores(xr.DataArray(found, coords, ("site", "head", "prompt", "seed"), attrs=dict(about)))


def _others(prompt: str, prompts: Sequence[str], others: Sequence[str] | None) -> list[str]:
    found = [p for p in (prompts if others is None else others) if p != prompt]
    if not found:
        raise UsageError(
            f"there is no other prompt than {prompt!r} to take the mean over; give others=[...], several "
            "prompts, or by='zero'"
        )
    return found


def _means(
    model: Model, heads: Heads, prompts: Sequence[str], seed: int, how: SamplingOptions
) -> dict[Site, Tensor]:
    """Mean of each site over prompts, [step, 1, head, token, channel]; two runs are in memory at a time."""
    sites, found = list(dict.fromkeys(site for site, _ in heads)), dict[Site, Tensor]()
    for prompt in prompts:
        run = trace(model, [prompt], seeds=[seed], sites=sites, **how)
        found = {s: found[s] + run[s] if found else run[s] for s in sites}
    return {site: x / len(prompts) for site, x in found.items()}
