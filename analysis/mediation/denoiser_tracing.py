"""Causal mediation in the denoiser: which activations carry a word into the picture (docs/mediation.md).

The same three kinds of runs as in a text encoder: clean, corrupted and restored; here one site is restored,
in one window of steps. Basu et al. 2024 (arXiv 2310.13730).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ...models.arguments import checked
from ...models.base import Model
from ...models.errors import UsageError
from ...models.progress import Progress
from ...models.run.context import CallContext, When
from ...models.site import Site
from ...models.text.prompt import Prompt
from ...probes.intervene import Change, Intervention, Spec
from ...probes.sweep.sweeping import SweepRun
from ...probes.trace import Trace, trace
from ..metrics import Metric
from .choice import Piece, denoiser_sites, neighbouring, pieces
from .corruption import Corruption, Noise
from .result import Mediation
from .runs import CausalExperiment, Restored, open_experiment
from .tracing import Tracing


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
    heads: Sequence[int | Sequence[int]] | None = None,
    tokens: Sequence[int | Sequence[int]] | None = None,
    neighbours: int = 1,
    direct: bool = False,
    source: Literal["trajectory", "in_place"] = "trajectory",
    corruption: Corruption = Noise(),  # noqa: B008  # a frozen value
    steps: int = 20,
    guidance: float | None = None,
    batch: int = 16,
    store: str | Path | None = None,
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
        heads: heads, or groups of them, of ``z``, ``q``, ``k``, ``v`` or ``probs``, restored one at a time.
        tokens: positions, or groups of them, of the sites' tokens, restored one at a time: of the picture, or
            of the text at ``unet/in/text``. Of windows, heads and tokens one at most.
        neighbours: how many neighbouring sites of one kind are restored together, the named in the middle.
        direct: run the clean prompt with each place as in the corrupted run, too: ``direct_effect`` and
            ``necessary``. Twice the runs.
        source: where restored activations come from. ``"trajectory"``: the clean run (Basu et al. 2024), so
            they also carry what clean latents look like. ``"in_place"``: the clean prompt at the restored
            run's own latents, which isolates the path from text through the site and doubles the rows.
        corruption: how the subject is taken out.
        steps: number of sampling steps.
        guidance: guidance scale; None is the model's default.
        batch: samples in one batch of the denoiser.
        store: a folder; each prompt and seed that is in it is not run again, so a call that was stopped goes
            on (docs/studies.md).
        progress: called with (done, total, what); without it a bar comes by itself.

    Returns:
        A Mediation with dims site, (window | head | token,) prompt, seed, draw.

    Raises:
        ValueError: for a model without text, sites outside the denoiser, and runs that cannot be made; heads
            or tokens that the sites do not have, or restored in place.
        LookupError: for a subject that is not in its prompt, and unknown sites.
        RuntimeError: for a store of another model or other settings, or that another process writes.
    """
    tracing = denoiser_tracing(
        model, prompts, subject, seeds=seeds, metric=metric, sites=sites, windows=windows, heads=heads,
        tokens=tokens, neighbours=neighbours, direct=direct, source=source, corruption=corruption,
        steps=steps, guidance=guidance, batch=batch,
    )  # fmt: skip
    return tracing.run(progress, store)


def denoiser_tracing(  # noqa: PLR0913  # what trace_denoiser is given
    model: Model,
    prompts: Sequence[str],
    subject: str | Sequence[str],
    *,
    seeds: Sequence[int],
    metric: Metric,
    sites: Sequence[Site | str] | Site | str | None = None,
    windows: Sequence[Collection[int]] | None = None,
    heads: Sequence[int | Sequence[int]] | None = None,
    tokens: Sequence[int | Sequence[int]] | None = None,
    neighbours: int = 1,
    direct: bool = False,
    source: Literal["trajectory", "in_place"] = "trajectory",
    corruption: Corruption = Noise(),  # noqa: B008  # a frozen value
    steps: int = 20,
    guidance: float | None = None,
    batch: int = 16,
) -> Tracing:
    """Return what ``trace_denoiser`` runs; errors as its."""
    experiment = open_experiment(
        model, prompts, subject, seeds, metric=metric, corruption=corruption, steps=steps,
        guidance=guidance, batch=batch,
    )  # fmt: skip
    places = denoiser_sites(model, sites)
    cuts, columns = pieces(model, places, len(model.steps(steps)), windows, heads, tokens)
    restore = {"trajectory": _from_trajectory, "in_place": _in_place}.get(source)
    if restore is None:
        raise UsageError(f"source is {source!r}; it is 'trajectory' (the clean run) or 'in_place'")
    if source == "in_place" and not (heads is None and tokens is None):
        raise UsageError(
            "heads and tokens are restored from the clean run alone; leave source as 'trajectory'"
        )
    plan = Plan(neighbouring(places, neighbours), cuts, direct)
    experiment.about.update(source=source, neighbours=neighbours)
    recipe = {"study": "trace_denoiser", "source": source, **plan.told}
    stored = source == "trajectory"
    return Tracing(
        experiment, places, columns, partial(restore, experiment, plan), 3, direct, recipe,
        counted=partial(_standing_in, experiment, plan) if stored else None,
        keeps=plan.sites if stored else (),
        kept_steps=len(model.steps(steps) if plan.steps is None else plan.steps),
    )  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """What is restored: groups of sites, each in all pieces; and whether to block them too."""

    groups: Sequence[Sequence[Site]]
    cuts: Sequence[Piece]
    direct: bool

    @property
    def told(self) -> dict[str, Any]:
        """All of it, as JSON."""
        groups = [list(map(str, group)) for group in self.groups]
        return {"groups": groups, "pieces": [cut.told for cut in self.cuts], "direct": self.direct}

    @property
    def steps(self) -> list[int] | None:
        """At which steps something is restored; None is all."""
        windows = [cut.when.steps for cut in self.cuts]
        return None if None in windows else sorted({i for steps in windows for i in steps or ()})

    @property
    def sites(self) -> list[Site]:
        """All sites that are restored, each once."""
        return list(dict.fromkeys(site for group in self.groups for site in group))

    @property
    def places(self) -> list[tuple[Sequence[Site], Piece]]:
        """All places, sites first."""
        return [(group, cut) for group in self.groups for cut in self.cuts]


def _from_trajectory(experiment: CausalExperiment, plan: Plan, p: int, seed: int) -> Restored:
    """Activations of the clean run, made once; the largest memory is that of one sample's run."""
    settings = {k: experiment.settings[k] for k in ("steps", "guidance")}
    how = {"sites": plan.sites, "when": When(plan.steps), **settings}

    def run(prompt: Prompt) -> Trace:
        return trace(experiment.model, [prompt], seeds=[seed], **how)

    def put(values: Trace) -> list[tuple[Intervention, ...]]:
        return [tuple(cut.patch(site, values) for site in group) for group, cut in plan.places]

    clean, corrupted = run(experiment.clean[p]), experiment.corrupted[p]
    runs = [[SweepRun(prompt, seed, patches) for prompt in corrupted] for patches in put(clean)]
    if not plan.direct:
        return Restored(runs, clean.latents[0], experiment.rows_per_run)
    each = zip(*(put(run(prompt)) for prompt in corrupted), strict=True)
    blocked = [[SweepRun(experiment.clean[p], seed, patches) for patches in draws] for draws in each]
    return Restored(runs, clean.latents[0], (1 + len(corrupted)) * experiment.rows_per_run, blocked)


def _standing_in(experiment: CausalExperiment, plan: Plan, p: int, seed: int) -> Restored:
    """The same runs, with what puts nothing in place: for counting, no clean run is made."""

    def put(draw: int) -> list[tuple[Intervention, ...]]:
        return [
            tuple(
                Intervention(site, lambda *_: None, cut.when, Spec("nothing", {"place": n, "draw": draw}))
                for site in group
            )
            for n, (group, cut) in enumerate(plan.places)
        ]

    clean, corrupted = experiment.clean[p], experiment.corrupted[p]
    runs = [[SweepRun(prompt, seed, patches) for prompt in corrupted] for patches in put(0)]
    each = zip(*map(put, range(1, 1 + len(corrupted))), strict=True)
    blocked = [[SweepRun(clean, seed, patches) for patches in draws] for draws in each if plan.direct]
    traced = 1 + len(corrupted) if plan.direct else 1
    return Restored(runs, torch.zeros(()), traced * experiment.rows_per_run, blocked)


def _in_place(experiment: CausalExperiment, plan: Plan, p: int, seed: int) -> Restored:
    """Beside each run (row 0) the other prompt (row 1), shown the run's own latents at each step."""
    entry = experiment.model.input_site

    def pair(group: Sequence[Site], when: When) -> tuple[Intervention, ...]:
        copied = (copied_row(site, 1, 0, when) for site in group)
        return (copied_row(entry, 0, 1, when), *copied)

    put = [pair(group, cut.when) for group, cut in plan.places]
    clean, corrupted = experiment.clean[p], experiment.corrupted[p]
    runs = [[SweepRun(prompt, seed, i, (clean,)) for prompt in corrupted] for i in put]
    blocked = [[SweepRun(clean, seed, i, (prompt,)) for prompt in corrupted] for i in put]
    return Restored(runs, blocked=blocked if plan.direct else ())


def copied_row(site: Site, source: int, target: int, when: When) -> Intervention:
    """Give one row of a batch what another one has there, as an intervention."""
    return Intervention(site, copy_row(source, target), when, Spec("copy_row", {"rows": [source, target]}))


def copy_row(source: int, target: int) -> Change:
    """Give one row of a batch what another one has."""

    def fn(x: Tensor, _: CallContext) -> Tensor:
        y = x.clone()
        y[target] = x[source]
        return y

    return fn
