"""A causal tracing as a study in a store: a unit is one prompt and seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...models.progress import Progress
from ...models.run.sampling import Sampling
from ...models.store.identity import digest, identity, spec_of
from ...models.store.study import studying
from ...probes.sweep.keeping import told
from .runs import CausalExperiment, Restore


@contextmanager
def scoring(
    experiment: CausalExperiment, store: str | Path | None, recipe: dict[str, Any]
) -> Iterator[Callable[..., tuple[Any, int]]]:
    """Give ``experiment.sample``, or what asks a store first.

    Args:
        experiment: checked and encoded.
        store: a folder, or None.
        recipe: the function's name as ``study``, and all that its restored runs depend on beside what the
            experiment knows; JSON.
    """
    if store is None:
        yield experiment.sample
        return
    batch, steps, guidance = (experiment.settings[k] for k in ("batch", "steps", "guidance"))
    base = identity(experiment.model, Sampling(steps=steps, guidance=guidance), batch)
    parts = {**recipe, "base": digest(base), "metric": spec_of(experiment.metric, "the metric")}
    parts |= {"prompts": [told(p) for p in experiment.clean], "subjects": experiment.about["subject"]}
    parts |= {"corruption": experiment.about["corruption"]}
    seeds, units = {"seeds": list(experiment.seeds)}, len(experiment.clean) * len(experiment.seeds)
    texts = [p.text for p in experiment.clean]
    about = {"prompts": texts, "metric": experiment.about["metric"], **seeds}
    with studying(store, base, recipe["study"], {**parts, **seeds}, units=units, about=about) as study:

        def score(p: int, seed: int, restore: Restore, progress: Progress) -> tuple[Any, int]:
            def make() -> tuple[dict[str, Tensor], int]:
                found, rows = experiment.sample(p, seed, restore, progress, study)
                return {"scores": torch.from_numpy(found)}, rows

            if study is None:
                return experiment.sample(p, seed, restore, progress)
            kept = study.make({**parts, "prompt": p, "seed": seed}, make, {"prompt": texts[p], "seed": seed})
            progress(1, 1, "runs")
            return kept.tensors["scores"].numpy(), kept.rows

        yield score
