"""The runs behind causal mediation: clean, corrupted and restored, made in few batches and scored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from ...models.base import Model, check_run
from ...models.errors import UsageError
from ...models.progress import Progress
from ...models.run.sampling import Sampling
from ...models.site import Site
from ...models.store.provenance import provenance
from ...models.store.study import Study
from ...models.text.prompt import Prompt
from ...probes.sweep.sweeping import SweepRun, sweep
from ..metrics import Metric, Outcome, measure
from .corruption import CorruptedText, Corruption, check_reads_text, check_swapped, corrupt, encode_rows
from .result import Mediation


@dataclass(frozen=True, eq=False)
class Restored:
    """The restored runs of one prompt and seed.

    Args:
        runs: [place][draw].
        clean: final latents of the clean run, if it was made on the way, [...].
        rows: denoiser rows that it took.
        blocked: clean but for the place, which is as in the corrupted run, [place][draw]; none if the direct
            effect is not asked for.
    """

    runs: Sequence[Sequence[SweepRun]]
    clean: Tensor | None = None
    rows: int = 0
    blocked: Sequence[Sequence[SweepRun]] = ()


Columns = tuple[str, dict[str, Any]]
"""A dimension's name, and its coordinates."""
Restore = Callable[[int, int], Restored]
"""From a prompt's index and a seed to its restored runs."""


@dataclass(frozen=True, eq=False)
class CausalExperiment:
    """What all runs of one mediation share.

    Args:
        model: the model.
        clean: the clean prompts.
        corruptions: what they are corrupted with, [prompt][draw].
        corrupted: the corrupted prompts, encoded, [prompt][draw].
        seeds: each prompt is run with each.
        metric: scores finished runs.
        corruption: how ``corruptions`` were made.
        settings: steps, guidance and batch, for ``sweep``.
        about: what else provenance should tell.
    """

    model: Model
    clean: Sequence[Prompt]
    corruptions: Sequence[Sequence[CorruptedText]]
    corrupted: Sequence[Sequence[Prompt]]
    seeds: Sequence[int]
    metric: Metric
    corruption: Corruption
    settings: dict[str, Any]
    about: dict[str, Any]

    @property
    def rows_per_run(self) -> int:
        """Denoiser rows of one sample's run; guidance doubles them."""
        branches = self.model.branch_names(self.settings["guidance"])
        return len(self.model.steps(self.settings["steps"])) * len(branches)

    def sample(
        self, p: int, seed: int, restore: Restore, progress: Progress, store: Study | None = None
    ) -> tuple[Any, int]:
        """Score [clean, corrupted draws, places x draws] of one prompt and seed; and say what they cost."""
        restored = restore(p, seed)
        runs = self.runs(p, seed, restored)
        distinct = {_key(run): run for run in runs}
        swept = sweep(self.model, list(distinct.values()), store=store, progress=progress, **self.settings)
        latents = swept.latents
        if restored.clean is not None:
            latents = torch.cat([restored.clean[None].to(latents), latents])
        found = self._measure(latents, p, latents[0])
        self._check_sees(found, latents)
        place = {key: i + len(latents) - len(distinct) for i, key in enumerate(distinct)}
        order = [*([] if restored.clean is None else [0]), *(place[_key(run)] for run in runs)]
        return found[order], swept.rows + restored.rows

    def runs(self, p: int, seed: int, restored: Restored) -> list[SweepRun]:
        """What is swept for one prompt and seed: clean, if it is not made yet, corrupted, restored."""
        first = [SweepRun(self.clean[p], seed)] if restored.clean is None else []
        corrupted = [SweepRun(prompt, seed) for prompt in self.corrupted[p]]
        places = (*restored.runs, *restored.blocked)
        return [*first, *corrupted, *(run for place in places for run in place)]

    def _check_sees(self, scores: Any, latents: Tensor) -> None:
        """Raise UsageError for a metric that is the same to the bit for all these runs, though they differ.

        Whole numbers may agree: they are answers, like yes and no.
        """
        if (
            (scores != scores[0]).any()
            or scores[0] == np.round(scores[0])
            or torch.equal(latents[:-1], latents[1:])
        ):
            return
        raise UsageError(
            f"the metric {getattr(self.metric, '__name__', repr(self.metric))} is {scores[0]:g} for all of "
            f"{len(scores)} runs, though their pictures differ; it does not look at them: take another"
        )

    def _measure(self, latents: Tensor, p: int, clean: Tensor) -> Any:
        """Score finished runs of one prompt and seed, in batches, so that few pictures lie in memory."""
        parts = []
        for x in latents.split(min(self.settings["batch"], len(latents))):
            outcome = Outcome(x, (self.clean[p],) * len(x), self.model.decode, clean.expand_as(x))
            parts.append(measure(self.metric, outcome).double().cpu().numpy())
        return np.concatenate(parts)

    def report(
        self,
        sites: Sequence[Site],
        columns: Columns | None,
        ends: dict[str, Any],
        places: dict[str, Any],
        about: dict[str, Any],
    ) -> Mediation:
        """Return scores with their labels.

        Args:
            sites: first axis of the places.
            columns: name and coordinates of the second axis, if there is one.
            ends: clean [prompt, seed] and corrupted [prompt, seed, draw].
            places: restored (and blocked), [place, prompt, seed, draw].
            about: provenance.
        """
        name, along = columns if columns else ("", {})
        shape = (len(sites), *((len(along[name]),) if columns else ()), *places["restored"].shape[1:])
        dims = ("site", *((name,) if columns else ()), "prompt", "seed", "draw")
        coords = {
            "site": [str(s) for s in sites],
            "block": ("site", [s.block for s in sites]),
            "kind": ("site", [s.kind for s in sites]),
            **along,
            "prompt": [p.text for p in self.clean],
            "seed": list(self.seeds),
            "draw": range(self.corruption.draws),
        }
        data = {
            "clean": (("prompt", "seed"), ends["clean"]),
            "corrupted": (("prompt", "seed", "draw"), ends["corrupted"]),
            **{kind: (dims, values.reshape(shape)) for kind, values in places.items()},
        }
        return Mediation(xr.Dataset(data, coords, about))


def open_experiment(
    model: Model,
    prompts: Sequence[str],
    subject: str | Sequence[str],
    seeds: Sequence[int],
    *,
    metric: Metric,
    corruption: Corruption,
    steps: int,
    guidance: float | None,
    batch: int,
) -> CausalExperiment:
    """Check the input, and encode the clean and the corrupted prompts.

    Raises:
        ValueError: for a model without text, repeated prompts or seeds, and runs that cannot be made.
        LookupError: for a subject that is not in its prompt, and words that no tokenizer knows.
    """
    check_reads_text(model)
    guidance = model.default_guidance if guidance is None else guidance
    check_each_once("prompts", prompts)
    check_each_once("seeds", seeds)
    check_run(len(seeds), seeds)
    how = Sampling(steps=steps, guidance=guidance)
    subjects = each_subject(prompts, subject)
    with torch.no_grad():
        clean = model.encode(list(prompts))
    corruptions = corrupt(model, clean, subjects, corruption)
    corrupted = [encode_rows(model, [(c.text, c.interventions()) for c in draws]) for draws in corruptions]
    check_swapped(corruption, [prompt for draws in corrupted for prompt in draws])
    about = provenance(
        model,
        **how.described(model),
        subject=subjects,
        corruption=repr(corruption),
        metric=getattr(metric, "__name__", repr(metric)),
    )
    settings = {"steps": steps, "guidance": guidance, "batch": batch}
    return CausalExperiment(
        model, clean, corruptions, corrupted, list(seeds), metric, corruption, settings, about
    )


def each_subject(prompts: Sequence[str], subject: str | Sequence[str]) -> list[str]:
    """Return the subject of each prompt, given one for all or one for each; else raise ValueError."""
    subjects = [subject] * len(prompts) if isinstance(subject, str) else list(subject)
    if len(subjects) != len(prompts):
        raise UsageError(
            f"{len(prompts)} prompts but {len(subjects)} subjects; give one for all, or one for each"
        )
    return subjects


def check_each_once(name: str, given: Sequence[Any]) -> None:
    """Raise ValueError if nothing is given, or something twice."""
    if not given:
        raise UsageError(f"{name} is empty; give at least one")
    twice = [x for x in dict.fromkeys(given) if list(given).count(x) > 1]
    if twice:
        raise UsageError(f"{name} hold {twice[0]!r} more than once; a repeated run is no new evidence")


def _key(run: SweepRun) -> tuple[int, ...]:
    return (*map(id, (run.prompt, *run.companions)), -1, *map(id, run.interventions))
