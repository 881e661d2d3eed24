"""Attribution patching: one backward pass ranks all sites. An approximation, and marked as one.

Nanda 2023, "Attribution Patching"; Syed et al. 2024 (arXiv:2310.10348). The indirect effect of putting the
clean activation a_clean into the corrupted run is taken to first order, step by step::

    effect(site)  ~  Σ_t  < a_clean(t) - a_corrupted(t),  d metric / d a(t) >     at the corrupted run

The true effect runs the sampler once for each site (``trace_denoiser``); this runs it twice, once with
gradients. It misses whatever is not linear: saturated attention, effects of later steps on each other,
thresholds of a judge. ``agreement`` says how well it ranks where the truth was measured too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd
import torch
import xarray as xr
from scipy.stats import spearmanr
from torch import Tensor

from ...models.arguments import checked
from ...models.base import Model, Prompt
from ...models.errors import UsageError
from ...models.progress import Progress, showing
from ...models.run.context import CallContext
from ...models.site import Site
from ...probes.intervene import Intervention
from ...probes.trace import trace
from ..mediation.choice import denoiser_sites
from ..mediation.corruption import Corruption, Noise
from ..mediation.runs import CausalExperiment, open_experiment
from ..metrics import Metric, Outcome, check_differentiable
from ..scores import Scores


@checked
def attribution_patching(  # noqa: PLR0913  # one experiment, all its settings by name
    model: Model,
    prompts: Sequence[str],
    subject: str | Sequence[str],
    *,
    seeds: Sequence[int],
    metric: Metric,
    sites: Sequence[Site | str] | Site | str | None = None,
    corruption: Corruption = Noise(draws=1),  # noqa: B008  # a frozen value
    steps: int = 20,
    guidance: float | None = None,
    recompute: bool = True,
    progress: Progress | None = None,
) -> Scores:
    """Return the indirect effect of each site to first order, in units of the metric.

    The scores' ``values.attrs`` say ``approximate``. Memory is that of the sites' activations at all steps,
    three times, and one step of the network.

    Args:
        model: an opened model with a text encoder.
        prompts: clean texts.
        subject: the words to take out, or one for each prompt.
        seeds: each prompt is run with each seed.
        metric: scores finished runs, and is differentiable in their latents or pictures.
        sites: of the denoiser; None is what each layer adds to the stream, as in ``trace_denoiser``.
        corruption: how the subject is taken out.
        steps: number of sampling steps.
        guidance: guidance scale; None is the model's default.
        recompute: compute each step again for its gradients, in the memory of one step instead of all; False
            where interventions of a surrounding block act, which that refuses.
        progress: called with (done, total, what).

    Returns:
        Scores with dims site, prompt, seed, draw.

    Raises:
        ValueError: as ``trace_denoiser``; and for a metric without a gradient.
        LookupError: as ``trace_denoiser``.
    """
    experiment = open_experiment(
        model,
        prompts,
        subject,
        seeds,
        metric=metric,
        corruption=corruption,
        steps=steps,
        guidance=guidance,
        batch=1,
    )
    places = denoiser_sites(model, sites)
    shape = (len(places), len(prompts), len(seeds), corruption.draws)
    found, pairs = np.empty(shape), list(product(range(len(prompts)), range(len(seeds))))
    with showing(progress) as show:
        for i, (p, s) in enumerate(pairs):
            found[:, p, s] = _first_order(experiment, places, p, seeds[s], recompute)
            show(i + 1, len(pairs), "prompts and seeds, with gradients")
    coords = {
        "site": [str(s) for s in places],
        "block": ("site", [s.block for s in places]),
        "kind": ("site", [s.kind for s in places]),
        "prompt": list(prompts),
        "seed": list(seeds),
        "draw": range(corruption.draws),
    }
    rows = (
        experiment.rows_per_run * len(pairs) * (1 + 4 * corruption.draws)
    )  # a backward pass, recomputed: 3 more
    about = {**experiment.about, "method": "attribution_patching", "approximate": True, "rows": rows}
    return Scores(xr.DataArray(found, coords, ("site", "prompt", "seed", "draw"), attrs=about))


def _first_order(  # noqa: PLR0917  # one sample
    experiment: CausalExperiment, sites: Sequence[Site], p: int, seed: int, recompute: bool
) -> Tensor:
    """[site, draw] of one prompt and seed."""
    settings = {k: experiment.settings[k] for k in ("steps", "guidance")}
    clean = trace(experiment.model, [experiment.clean[p]], seeds=[seed], sites=sites, **settings)
    corrupted = experiment.corrupted[p]
    values, slopes = _slopes(experiment, corrupted, sites, p, seed, clean.latents, recompute)
    found = torch.zeros(len(sites), len(corrupted), dtype=torch.float64)
    for i, site in enumerate(sites):
        for t, step in enumerate(clean.kept_steps):
            there, slope = values[site, step.index], slopes[site, step.index]
            gap = clean[site][t].double() - there.double()
            found[i] += (gap * slope.double()).flatten(1).sum(1)
    return found


Places = dict[tuple[Site, int], Tensor]


def _slopes(  # noqa: PLR0917  # as _first_order has them
    experiment: CausalExperiment,
    corrupted: Sequence[Prompt],
    sites: Sequence[Site],
    p: int,
    seed: int,
    clean: Tensor,
    recompute: bool,
) -> tuple[Places, Places]:
    """What passes through sites in the corrupted runs, and the metric's gradient there, by site and step."""
    model, added, values = experiment.model, Places(), Places()

    def add(site: Site) -> Intervention:
        def fn(x: Tensor, context: CallContext) -> Tensor:
            at = site, context.step.index if context.step else -1
            if at not in added:  # computed again for gradients, the same one is added
                values[at] = x.detach().cpu()
                added[at] = torch.zeros_like(x, requires_grad=True)
            return x + added[at]

        return Intervention(site, fn)

    n = len(corrupted)
    how = {k: experiment.settings[k] for k in ("steps", "guidance")}
    with torch.enable_grad():
        run = model.sample(
            list(corrupted), seeds=[seed] * n, interventions=list(map(add, sites)), recompute=recompute, **how
        )
        *_, state = run
        prompts = (experiment.clean[p],) * n
        outcome = Outcome(
            state.latents, prompts, model.decode, clean.expand_as(state.latents).to(state.latents)
        )
        scores = experiment.metric(outcome)
        check_differentiable(scores, experiment.metric, n)
        gradients = torch.autograd.grad(scores.sum(), list(added.values()), allow_unused=True)
    slopes = (torch.zeros_like(x) if g is None else g for g, x in zip(gradients, added.values(), strict=True))
    return values, {at: g.cpu() for at, g in zip(added, slopes, strict=True)}


@checked
def agreement(approximate: Scores, true: Scores, level: float = 0.95) -> pd.Series:
    """Return how well approximate scores rank places: Spearman's ``rank`` correlation with the true ones.

    Args:
        approximate: of ``attribution_patching``, or ``head_relevance``.
        true: of the same sites, or heads of sites, in any order: ``trace_denoiser(...).indirect_effect``,
            ``head_ablation``.
        level: of the interval, by Fisher's z with the variance of Bonett & Wright (2000); it speaks of sites
            (or heads) as a sample of them, and not of other prompts.

    Returns:
        ``rank``, ``low``, ``high``, ``sites`` (how many), and ``top``: whether both name the same best one.

    Raises:
        ValueError: for other places, and fewer than five.
    """
    if approximate.places != true.places or "site" not in true.places:
        raise UsageError(
            f"the scores are over {approximate.places} and {true.places}; to compare ranks give scores of "
            "the same: of sites, or of heads of sites"
        )
    ours, theirs = (scores.mean().to_series().dropna() for scores in (approximate, true))
    n = len(ours)
    if set(ours.index) != set(theirs.index) or n < 5:
        raise UsageError(
            f"the scores are of {n} and {len(theirs)} sites, {len({*ours.index} & {*theirs.index})} of them "
            "the same; give both for the same sites, at least five"
        )
    rank = float(spearmanr(ours, theirs[ours.index]).statistic)
    z = math.atanh(min(max(rank, -0.999999), 0.999999))
    half = float(-torch.special.ndtri(torch.tensor((1 - level) / 2))) * math.sqrt((1 + rank**2 / 2) / (n - 3))
    low, high = math.tanh(z - half), math.tanh(z + half)
    same = ours.idxmax() == theirs.idxmax()
    return pd.Series({"rank": rank, "low": low, "high": high, "sites": n, "top": bool(same)})
