"""Does an attribute follow the strength of a direction, and what else moves?"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, TypeAlias, Unpack, runtime_checkable

import xarray as xr
from torch import Tensor

from ...models.arguments import checked
from ...models.base import Model
from ...models.errors import UsageError
from ...models.progress import Progress
from ...models.run.context import When
from ...models.run.sampling import Sampling, SamplingOptions
from ...models.store.provenance import provenance
from ...probes.direction import Direction
from ..metrics import Metric
from .cosines import random_like
from .measuring import Ground, each_subject_or_none
from .steering import Steering


@runtime_checkable
class Applied(Protocol):
    """What changes a model for a while: an ``Edit``."""

    @property
    def applied(self) -> Callable[[Model], AbstractContextManager[object]]:
        """Enter with the model."""


Other: TypeAlias = Sequence[str] | Applied
"""Other texts, one for each prompt; or an edit."""


@checked
def evaluate_direction(  # noqa: PLR0913  # one experiment, all its settings by name
    model: Model,
    direction: Direction,
    prompts: Sequence[str],
    *,
    seeds: Sequence[int],
    metrics: Mapping[str, Metric],
    subject: str | Sequence[str] | None = None,
    strengths: Sequence[float] = (-1.0, -0.5, 0.0, 0.5, 1.0),
    beside: Mapping[str, Other] | None = None,
    randoms: int = 1,
    when: When = When(),
    batch: int = 16,
    progress: Progress | None = None,
    **settings: Unpack[SamplingOptions],
) -> Steering:
    """Steer by a direction, and by random ones of equal length, with several strengths, and score all.

    Args:
        model: an opened model.
        direction: what is evaluated.
        prompts: texts, each once, with which it was not found.
        seeds: each prompt runs with each.
        metrics: by name: what is to follow the strength, and what is to stay. Their clean run is the plain
            one.
        subject: for directions of a subject's rows: of all prompts, or one for each.
        strengths: of steering; 0 is the plain picture, and always made.
        beside: by name, other ways to the same end: other texts, one for each prompt, or an edit.
        randoms: how many random directions.
        when: which steps and which branch.
        batch: samples in one batch of the denoiser.
        progress: called with (done, total, what).
        **settings: how it is sampled, as in ``Sampling``.

    Raises:
        ValueError: for strengths that are not finite, steps outside the run, names that are taken, other
            texts that do not pair, and directions that do not fit the model.
        LookupError: for sites and subjects that are not there.
    """
    tried = sorted({0.0, *map(float, strengths)})
    others = dict(beside or {})
    if not all(map(math.isfinite, tried)) or len(tried) < 2 or randoms < 0:
        raise UsageError(
            f"strengths are {list(strengths)}, randoms {randoms}; give a finite one other than 0"
        )
    if "plain" in others:
        raise UsageError("'plain' is the picture that nothing steers; give what is beside it another name")
    subjects = each_subject_or_none(prompts, subject, direction)
    ground = Ground(model, prompts, subjects, seeds, metrics, batch, settings, progress)
    acting = {"direction": direction, **{f"random {i}": random_like(direction, i) for i in range(randoms)}}
    ways = {f"{n} {s}": ground.acting(d, s, when) for n, d in acting.items() for s in tried}
    latents = ground.paint(ways)
    plain = latents[tried.index(0.0)]
    scored = ground.score(latents, plain)
    parts = [scored[i * len(tried) : (i + 1) * len(tried)].rename(way="strength") for i in range(len(acting))]
    steered = xr.concat(parts, "way").assign_coords(way=list(acting), strength=tried)
    found = {"plain": ground.score(plain[None], plain)[0]}
    for name, other in others.items():
        found[name] = ground.score(_other(ground, name, other), plain)[0]
    aside = xr.concat(list(found.values()), "other").assign_coords(other=list(found))
    about = provenance(model, **Sampling(**settings).described(model), method="evaluate_direction")
    return Steering(xr.Dataset({"steered": steered, "beside": aside}, attrs=about))


def _other(ground: Ground, name: str, other: Other) -> Tensor:
    """Final latents of other texts, or under an edit, [1, prompt, seed, ...]."""
    if isinstance(other, Applied):
        with other.applied(ground.model):
            return ground.paint({name: [()] * len(ground.prompts)})
    if isinstance(other, str) or len(other) != len(ground.prompts):
        raise UsageError(
            f"{name!r} is {other!r}; give one text for each of {len(ground.prompts)} prompts, or an edit"
        )
    return ground.paint({name: list(other)})
