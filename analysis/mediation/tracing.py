"""A causal tracing that is checked and encoded: it can be run, and counted before it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from ...models.progress import Progress, part, showing
from ...models.site import Site
from .keeping import scoring
from .result import Mediation
from .runs import CausalExperiment, Columns, Restore


@dataclass(frozen=True, eq=False)
class Tracing:
    """What is restored of an experiment.

    Args:
        experiment: what all runs share.
        sites: first axis of the places.
        columns: name and coordinates of the second axis, if there is one.
        restore: gives the restored runs of a prompt and seed, sites first.
        configurations: runs that the published scheme makes for each score: 3 if it runs clean and corrupted
            anew for each.
        direct: whether ``restore`` gives blocked runs as well.
        recipe: the function's name as ``study``, and all that its restored runs depend on beside what the
            experiment knows; JSON. Without it there is no store.
        counted: ``restore`` without running anything, for counting; None is ``restore`` itself.
        kept: bytes of activations that are kept while a prompt and seed is traced.
    """

    experiment: CausalExperiment
    sites: Sequence[Site]
    columns: Columns | None
    restore: Restore
    configurations: int
    direct: bool = False
    recipe: dict[str, Any] = field(default_factory=dict)
    counted: Restore | None = None
    kept: int = 0

    @property
    def cells(self) -> int:
        """How many places there are."""
        return len(self.sites) * (len(self.columns[1][self.columns[0]]) if self.columns else 1)

    @property
    def each(self) -> int:
        """How many scores a prompt and seed has."""
        draws = self.experiment.corruption.draws
        return 1 + draws + (1 + self.direct) * self.cells * draws

    @property
    def reference_rows(self) -> int:
        """Denoiser rows that the published scheme takes for the same scores."""
        of = self.experiment
        places = (1 + self.direct) * self.cells * of.corruption.draws * len(of.clean) * len(of.seeds)
        return self.configurations * of.rows_per_run * places

    def run(self, progress: Progress | None, store: str | Path | None = None) -> Mediation:
        """Make and score all runs; what is in the store is not made again."""
        of, draws, each = self.experiment, self.experiment.corruption.draws, self.each
        prompts, seeds = len(of.clean), len(of.seeds)
        scores, rows = np.empty((each, prompts, seeds)), 0
        with showing(progress) as show, scoring(of, store, self.recipe) as score:
            for i, (p, s) in enumerate(product(range(prompts), range(seeds))):
                step = part(show, i * each, each, prompts * seeds * each, "runs, restored in each place")
                scores[:, p, s], made = score(p, of.seeds[s], self.restore, step)
                rows += made
        corrupted = scores[1 : 1 + draws].transpose(1, 2, 0)
        shape = (1 + self.direct, self.cells, draws, prompts, seeds)
        both = scores[1 + draws :].reshape(shape).transpose(0, 1, 3, 4, 2)
        places = dict(zip(("restored", "blocked")[: len(both)], both, strict=True))
        about = {**of.about, "rows": rows, "reference_rows": self.reference_rows}
        ends = {"clean": scores[0], "corrupted": corrupted}
        return of.report(self.sites, self.columns, ends, places, about)
