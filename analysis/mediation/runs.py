"""The runs behind causal mediation: clean, corrupted and restored, made in few batches and scored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from ...models.base import Model, check_run
from ...models.errors import UsageError
from ...models.progress import Progress, part, showing
from ...models.run.sampling import Sampling
from ...models.site import Site
from ...models.store.identity import digest, identity, spec_of
from ...models.store.provenance import provenance
from ...models.store.study import Study, studying
from ...models.text.prompt import Prompt
from ...probes.sweep.keeping import told
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

    def mediate(
        self,
        sites: Sequence[Site],
        columns: Columns | None,
        restore: Restore,
        configurations: int,
        progress: Progress | None,
        *,
        direct: bool = False,
        store: str | Path | None = None,
        recipe: dict[str, Any],
    ) -> Mediation:
        """Make and score all runs.

        Args:
            sites: first axis of the places.
            columns: name and coordinates of the second axis, if there is one.
            restore: gives the restored runs of a prompt and seed, sites first.
            configurations: runs that the published scheme makes for each score: 3 if it runs clean and
                corrupted anew for each.
            progress: called with (done, total, what).
            direct: whether ``restore`` gives blocked runs as well.
            store: a folder; what is in it is not made again.
            recipe: the function's name as ``study``, and all that its restored runs depend on beside what the
                experiment knows; JSON.
        """
        cells = len(sites) * (len(columns[1][columns[0]]) if columns else 1)
        prompts, seeds, draws = len(self.clean), len(self.seeds), self.corruption.draws
        each = 1 + draws + (1 + direct) * cells * draws
        scores = np.empty((each, prompts, seeds))
        rows = 0
        with showing(progress) as show, self._study(store, recipe) as score:
            for i, (p, s) in enumerate(product(range(prompts), range(seeds))):
                step = part(show, i * each, each, prompts * seeds * each, "runs, restored in each place")
                scores[:, p, s], made = score(p, self.seeds[s], restore, step)
                rows += made
        corrupted = scores[1 : 1 + draws].transpose(1, 2, 0)
        both = scores[1 + draws :].reshape(1 + direct, cells, draws, prompts, seeds).transpose(0, 1, 3, 4, 2)
        reference = configurations * self.rows_per_run * both.size
        about = {**self.about, "rows": rows, "reference_rows": reference}
        names = ("restored", "blocked")[: len(both)]
        places = dict(zip(names, both, strict=True))
        return self._report(sites, columns, {"clean": scores[0], "corrupted": corrupted}, places, about)

    @contextmanager
    def _study(self, store: str | Path | None, recipe: dict[str, Any]) -> Iterator[Callable[..., Any]]:
        """Give ``_sample``, or what asks a store first; a unit is one prompt and seed."""
        if store is None:
            yield self._sample
            return
        batch, steps, guidance = (self.settings[k] for k in ("batch", "steps", "guidance"))
        base = identity(self.model, Sampling(steps=steps, guidance=guidance), batch)
        parts = {**recipe, "base": digest(base), "metric": spec_of(self.metric, "the metric")}
        parts |= {"prompts": [told(p) for p in self.clean], "subjects": self.about["subject"]}
        parts |= {"corruption": self.about["corruption"]}
        seeds, units = {"seeds": list(self.seeds)}, len(self.clean) * len(self.seeds)
        about = {"prompts": [p.text for p in self.clean], "metric": self.about["metric"], **seeds}
        with studying(store, base, recipe["study"], {**parts, **seeds}, units=units, about=about) as study:

            def score(p: int, seed: int, restore: Restore, progress: Progress) -> tuple[Any, int]:
                def make() -> tuple[dict[str, Tensor], int]:
                    found, rows = self._sample(p, seed, restore, progress, study.inside if study else None)
                    return {"scores": torch.from_numpy(found)}, rows

                one = {"prompt": p, "seed": seed}
                kept = study.make({**parts, **one}, make, {"prompt": self.clean[p].text, "seed": seed})
                progress(1, 1, "runs")
                return kept.tensors["scores"].numpy(), kept.rows

            yield score

    def _sample(
        self, p: int, seed: int, restore: Restore, progress: Progress, store: Study | None = None
    ) -> tuple[Any, int]:
        """Score [clean, corrupted draws, places x draws] of one prompt and seed; and say what they cost."""
        restored = restore(p, seed)
        first = [SweepRun(self.clean[p], seed)] if restored.clean is None else []
        corrupted = [SweepRun(prompt, seed) for prompt in self.corrupted[p]]
        places = (*restored.runs, *restored.blocked)
        runs = [*first, *corrupted, *(run for place in places for run in place)]
        distinct = {_key(run): run for run in runs}
        swept = sweep(self.model, list(distinct.values()), store=store, progress=progress, **self.settings)
        latents = swept.latents
        if restored.clean is not None:
            latents = torch.cat([restored.clean[None].to(latents), latents])
        found = self._measure(latents, p, latents[0])
        self._check_sees(found, latents)
        place = {key: i + len(latents) - len(distinct) for i, key in enumerate(distinct)}
        order = [*([] if first else [0]), *(place[_key(run)] for run in runs)]
        return found[order], swept.rows + restored.rows

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

    def _report(
        self,
        sites: Sequence[Site],
        columns: Columns | None,
        ends: dict[str, Any],
        places: dict[str, Any],
        about: dict[str, Any],
    ) -> Mediation:
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
