"""Does a model tell apart, in its own pictures, what it was asked for? Compositions above all.

The Self-Bench of Jeong et al. 2025 (arXiv:2505.17955): pictures that a model paints of each of several texts
are classified among these texts by the model itself, where no gap between it and the pictures can be the
reason for failing. Some of its pictures do not show what was asked; a judge can say which do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr

from ...models.arguments import batches, checked
from ...models.base import Model
from ...models.errors import UsageError
from ...models.judges.choosing import Function, TextJudge
from ...models.progress import Progress, showing
from ...probes.denoising_errors.result import Weight
from ...probes.trace import trace
from ..intervals import proportion
from ..judging import fits
from ..mediation.runs import check_each_once
from .classifying import classify
from .rows import read_prompts
from .step_weights import StepWeights

COLUMNS = ["task", "by", "pictures", "n", "accuracy", "low", "high", "ties", "chance"]


@checked
def self_bench(  # noqa: PLR0913  # one bench, all its settings by name
    model: Model,
    tasks: Mapping[str, Sequence[str]],
    *,
    seeds: Sequence[int],
    judge: TextJudge | Function | None = None,
    steps: int = 20,
    guidance: float | None = None,
    weights: Weight | Sequence[float] | StepWeights = "v",
    levels: int = 6,
    draws: int = 1,
    batch: int = 32,
    store: str | Path | None = None,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Say how often a model tells its own pictures of some texts apart.

    Args:
        model: an opened model that reads prompts.
        tasks: by name, texts that are to be told apart: ``{"order": ["a dog and a heart", "a heart and a
            dog"], "count": ["two dogs", "three dogs"]}``. Each is painted with each seed.
        seeds: of the pictures.
        judge: says how well pictures fit texts; then its own answers stand beside the model's, and the
            model's on those pictures whose own text the judge takes to fit best (``"as asked"``).
        steps: sampling steps.
        guidance: of the pictures; None is the model's default. They are classified without.
        weights: as in ``classify``.
        levels: as in ``classify``.
        draws: as in ``classify``.
        batch: samples, or rows, in one call of the network.
        store: a folder that keeps predictions, as in ``classify``.
        progress: called with (done, total, what); without it a bar comes by itself.

    Returns:
        A table: task, by ("denoiser" or "judge"), pictures ("all" or "as asked"), their number n, accuracy
        with its interval (Wilson's, of pictures that texts and seeds have in common), ties, which are errors,
        and chance.

    Raises:
        ValueError: for no tasks, a seed twice, and what ``classify`` and runs refuse.
    """
    if not tasks:
        raise UsageError('tasks is empty; name texts: {"order": ["a dog and a cat", "a cat and a dog"]}')
    check_each_once("seeds", seeds)
    if batch < 1:
        raise UsageError(f"batch is {batch}; it holds at least 1 sample")
    for texts in tasks.values():  # before anything is painted
        read_prompts(model, texts)
    how = {"weights": weights, "levels": levels, "draws": draws, "batch": batch, "store": store}
    guidance = model.default_guidance if guidance is None else guidance
    rows = []
    with showing(progress) as show:
        for name, texts in tasks.items():
            answers = _answers(model, texts, seeds, judge, {"steps": steps, "guidance": guidance}, how, show)
            rows += [(name, *row) for row in _told(answers, len(texts))]
    return pd.DataFrame(rows, columns=COLUMNS)


def _answers(  # noqa: PLR0917  # one task, as self_bench has it
    model: Model,
    texts: Sequence[str],
    seeds: Sequence[int],
    judge: TextJudge | Function | None,
    sampling: Mapping[str, Any],
    how: Mapping[str, Any],
    show: Progress,
) -> xr.Dataset:
    """Right answers [prompt, seed] and ties, of the denoiser and, if there is one, the judge."""
    cells, parts = list(product(texts, seeds)), []
    for some in batches(len(cells), how["batch"]):
        asked = [text for text, _ in cells[some]]
        run = trace(model, asked, seeds=[s for _, s in cells[some]], progress=show, **sampling)
        found = classify(model, run, texts, seed=some.start, progress=show, **how)
        said = {"denoiser": found.right(asked).values, "denoiser ties": found.data["tied"].values}
        if judge is not None:
            said |= _judged(fits(judge, run.images, texts), [list(texts).index(t) for t in asked])
        parts.append(said)
    dims, shape = ("prompt", "seed"), (len(texts), len(seeds))
    return xr.Dataset({k: (dims, np.concatenate([p[k] for p in parts]).reshape(shape)) for k in parts[0]})


def _judged(fit: torch.Tensor, own: Sequence[int]) -> dict[str, np.ndarray[Any, Any]]:
    """Where a picture's own text fits best alone, and where several fit best; NaN is no answer."""
    best = fit == fit.max(1, keepdim=True).values
    right = best[torch.arange(len(own)), list(own)] & (best.sum(1) == 1)
    return {"judge": right.double().numpy(), "judge ties": (best.sum(1) > 1).numpy()}


def _told(answers: xr.Dataset, n: int) -> list[tuple[object, ...]]:
    """Rows of one task."""
    rows = [_row(answers, "denoiser", "all", ["prompt", "seed"], n)]
    if "judge" in answers:
        rows.append(_row(answers, "judge", "all", ["prompt", "seed"], n))
        flat = answers.stack(picture=("prompt", "seed"), create_index=False)
        shown = flat.isel(picture=np.flatnonzero(flat["judge"].values == 1))
        rows.append(_row(shown, "denoiser", "as asked", ["picture"], n))
    return rows


def _row(answers: xr.Dataset, by: str, pictures: str, over: Sequence[str], n: int) -> tuple[object, ...]:
    values = answers[by]
    share = proportion(values, over) if values.size else {k: np.nan for k in ("mean", "low", "high")}
    numbers = (float(share[k]) for k in ("mean", "low", "high"))
    return (by, pictures, values.size, *numbers, int(answers[f"{by} ties"].sum()), 1 / n)
