"""Paint pictures with several strengths of a direction, and measure what each did."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from ..analysis.directions.measuring import Ground, each_subject_or_none
from ..analysis.metrics import Metric, latent_distance
from ..models.arguments import batches, checked
from ..models.base import Model
from ..models.errors import UsageError
from ..models.progress import Progress
from ..models.run.context import When
from ..models.run.sampling import Sampling, SamplingOptions
from ..models.store.provenance import provenance
from ..probes.direction import Direction
from .result import MOVED, Steered


@checked
def steered(
    model: Model,
    direction: Direction,
    prompts: Sequence[str],
    *,
    seeds: Sequence[int],
    strengths: Sequence[float] = (-2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0),
    subject: str | Sequence[str] | None = None,
    measures: Mapping[str, Metric] | None = None,
    when: When = When(),
    batch: int = 16,
    progress: Progress | None = None,
    **settings: Unpack[SamplingOptions],
) -> Steered:
    """Paint prompts with several strengths of a direction, from the same noise, and measure what each did.

    All strengths run in the same batches, and share the steps before the direction first acts.

    Args:
        model: an opened model.
        direction: what steers; strength 1 is as far as it is long (``calibrated`` gives it a unit).
        prompts: texts, each once.
        seeds: each prompt runs with each.
        strengths: of steering; 0 is the plain picture, and always there.
        subject: for directions of a subject's rows: of all prompts, or one for each.
        measures: by name, what is measured on each picture; how far the latents moved is always there.
        when: which steps and which branch; ``When(steps=range(4, 20))`` starts late.
        batch: samples in one batch of the denoiser.
        progress: called with (done, total, what); without it a bar comes by itself.
        **settings: how it is sampled, as in ``Sampling``.

    Raises:
        ValueError: for strengths that are not finite, steps outside the run, names that are taken, prompts
            or seeds that repeat, and directions that do not fit the model.
        LookupError: for sites and subjects that are not there.

    >>> from denoscope.models.synthetic.tiny import tiny_sd
    >>> from denoscope.analysis import token_direction
    >>> model = load(tiny_sd())
    >>> red = token_direction(model, ["a red cat"], ["a blue cat"], "cat")
    >>> found = steered(model, red, ["a dog"], seeds=[0], strengths=[1], subject="dog", steps=2)
    >>> found.data["strength"].values.tolist(), found.data["metric"].values.tolist()
    ([0.0, 1.0], ['moved'])
    """
    tried = sorted({0.0, *map(float, strengths)})
    if not all(map(math.isfinite, tried)) or len(tried) < 2:
        raise UsageError(f"strengths are {list(strengths)}; give at least one finite one other than 0")
    if MOVED in (measures or {}):
        raise UsageError(f"{MOVED!r} is how far the latents moved; give the measure another name")
    metrics: dict[str, Metric] = {MOVED: latent_distance(), **(measures or {})}
    subjects = each_subject_or_none(prompts, subject, direction)
    ground = Ground(model, prompts, subjects, seeds, metrics, batch, settings, progress)
    latents = ground.paint({str(s): ground.acting(direction, s, when) for s in tried})
    values = ground.score(latents, latents[tried.index(0.0)]).rename(way="strength")
    pictures = _painted(model, latents, batch)
    about: dict[str, Any] = provenance(model, **Sampling(**settings).described(model))
    about |= {"direction": repr(direction), "subject": [s or "" for s in subjects]}
    over = ("strength", "prompt", "seed", "row", "column", "channel")
    data = xr.Dataset(
        {"values": values.assign_coords(strength=tried), "pictures": (over, pictures)}, attrs=about
    )
    return Steered(data)


@torch.no_grad()
def _painted(model: Model, latents: Tensor, batch: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Pictures [strength, prompt, seed, row, column, channel] of latents [strength, prompt, seed, ...]."""
    flat = latents.flatten(0, 2)
    images = torch.cat([model.decode(flat[some]).float().cpu() for some in batches(len(flat), batch)])
    levels = (images.clamp(0, 1) * 255).round().to(torch.uint8).movedim(1, -1)
    made: np.ndarray[Any, np.dtype[np.uint8]] = levels.unflatten(0, latents.shape[:3]).numpy()
    return made
