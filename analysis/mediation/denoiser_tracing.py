"""Causal mediation in the denoiser: which activations carry a word into the picture (docs/mediation.md).

The same three kinds of runs as in a text encoder: clean, corrupted and restored; here one site is restored,
in one window of steps. Basu et al. 2024 (arXiv 2310.13730).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from typing import Literal

from torch import Tensor

from ...models.arguments import checked
from ...models.base import Model
from ...models.errors import UsageError
from ...models.progress import Progress
from ...models.run.context import CallContext, When
from ...models.site import Site
from ...probes.intervene import Change, Intervention, patch
from ...probes.sweep.sweeping import SweepRun
from ...probes.trace import trace
from ..metrics import Metric
from .choice import denoiser_sites, step_windows, window_name
from .corruption import Corruption, Noise
from .result import Mediation
from .runs import CausalExperiment, Restored, open_experiment


@checked
def trace_denoiser(  # noqa: PLR0913  # one experiment, all its settings by name
    model: Model,
    prompts: Sequence[str],
    subject: str | Sequence[str],
    *,
    seeds: Sequence[int],
    metric: Metric,
    sites: Sequence[Site | str] | Site | str | None = None,
    windows: Sequence[Collection[int]] | None = None,
    source: Literal["trajectory", "in_place"] = "trajectory",
    corruption: Corruption = Noise(),  # noqa: B008  # a frozen value
    steps: int = 20,
    guidance: float | None = None,
    batch: int = 16,
    progress: Progress | None = None,
) -> Mediation:
    """Restore one site of the denoiser at a time, in the guidance branch that reads the prompt.

    Args:
        model: an opened model with a text encoder.
        prompts: clean texts.
        subject: the words to take out, or one for each prompt.
        seeds: each prompt is run with each seed.
        metric: scores finished runs (``analysis.metrics``).
        sites: sites, addresses or globs; None is all of ``KINDS``: what each layer adds to the stream.
        windows: sets of step indices, like ``[range(0, 5), range(5, 20)]``; sites are restored in one
            window at a time. None is at all steps, as published.
        source: where restored activations come from. ``"trajectory"``: the clean run (Basu et al. 2024), so
            they also carry what clean latents look like. ``"in_place"``: the clean prompt at the restored
            run's own latents, which isolates the path from text through the site and doubles the rows.
        corruption: how the subject is taken out.
        steps: number of sampling steps.
        guidance: guidance scale; None is the model's default.
        batch: samples in one batch of the denoiser.
        progress: called with (done, total, what); without it a bar comes by itself.

    Returns:
        A Mediation with dims site, (window,) prompt, seed, draw.

    Raises:
        ValueError: for a model without text, sites outside the denoiser, and runs that cannot be made.
        LookupError: for a subject that is not in its prompt, and unknown sites.
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
        batch=batch,
    )
    places = denoiser_sites(model, sites)
    whens = step_windows(windows, len(model.steps(steps)))
    restore = {"trajectory": _from_trajectory, "in_place": _in_place}.get(source)
    if restore is None:
        raise UsageError(f"source is {source!r}; it is 'trajectory' (the clean run) or 'in_place'")
    columns = None if windows is None else ("window", {"window": [window_name(w) for w in whens]})
    experiment.about["source"] = source
    return experiment.mediate(places, columns, partial(restore, experiment, places, whens), 3, progress)


def _from_trajectory(
    experiment: CausalExperiment, sites: Sequence[Site], whens: Sequence[When], p: int, seed: int
) -> Restored:
    """Activations of the clean run, made once; the largest memory is that of one sample's run."""
    settings = {k: experiment.settings[k] for k in ("steps", "guidance")}
    needed = None if whens[0].steps is None else sorted({i for w in whens for i in w.steps or ()})
    when = When(needed)
    clean = trace(experiment.model, [experiment.clean[p]], seeds=[seed], sites=sites, when=when, **settings)
    put = [(patch(site, clean, when),) for site in sites for when in whens]
    runs = [[SweepRun(corrupted, seed, patches) for corrupted in experiment.corrupted[p]] for patches in put]
    return Restored(runs, clean.latents[0], experiment.rows_per_run)


def _in_place(
    experiment: CausalExperiment, sites: Sequence[Site], whens: Sequence[When], p: int, seed: int
) -> Restored:
    """Beside each run (row 0) the clean prompt (row 1), shown the run's own latents at each step."""
    entry = experiment.model.input_site

    def pair(site: Site, when: When) -> tuple[Intervention, ...]:
        return (Intervention(entry, _copy(0, 1), when), Intervention(site, _copy(1, 0), when))

    put = [pair(site, when) for site in sites for when in whens]
    beside = (experiment.clean[p],)
    return Restored(
        [[SweepRun(corrupted, seed, i, beside) for corrupted in experiment.corrupted[p]] for i in put]
    )


def _copy(source: int, target: int) -> Change:
    def fn(x: Tensor, _: CallContext) -> Tensor:
        y = x.clone()
        y[target] = x[source]
        return y

    return fn
