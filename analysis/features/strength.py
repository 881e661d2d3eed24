"""How strong a push has to be for the share that is wanted: a fixed ratio overshoots."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Unpack

import pandas as pd

from ...models.arguments import check_fields, checked
from ...models.base import Model, Prompt
from ...models.errors import UsageError
from ...models.progress import Progress, showing
from ...models.run.sampling import SamplingOptions
from ..word_experiments.counting import Label, labelled
from .painting import Acting, Samples


@dataclass(frozen=True, eq=False)
class CalibratedStrength:
    """The strength at which a share is as wanted.

    Args:
        strength: of those that were tried, the one whose share is nearest.
        share: that was seen with it, on the samples that chose it: count again on others.
        wanted: what it was to be.
        tried: ``strength`` and ``share``, in order of trial.
    """

    strength: float
    share: float
    wanted: float
    tried: pd.DataFrame

    def __post_init__(self) -> None:
        check_fields(self)

    def __repr__(self) -> str:
        told = f"strength {self.strength:.3g}: share {self.share:.3f}, wanted {self.wanted:.3f}"
        return f"CalibratedStrength({told}, {len(self.tried)} tried)"


@checked
def calibrated_strength(  # noqa: PLR0913  # one experiment, all its settings by name
    model: Model,
    push: Callable[[float], Acting],
    label: Label,
    share: tuple[str, float],
    prompts: Sequence[str | Prompt] | None = None,
    *,
    seeds: Sequence[int],
    most: float = 2.0,
    rounds: int = 6,
    batch: int = 16,
    progress: Progress | None = None,
    **settings: Unpack[SamplingOptions],
) -> CalibratedStrength:
    """Return the strength between 0 and ``most`` at which a class has a share, by halving.

    The same samples at each strength, so that shares differ by the push alone. Pictures of the class are
    counted among those to which the label gives any class.

    Args:
        model: an opened model.
        push: from a strength to what acts on each sample: ``lambda s: [(found.towards(d, "man", s),)] * n``.
        label: says of pictures what class each shows; None is no class.
        share: a class, and the share that it is to have: ``("man", 0.5)``.
        prompts: one for each sample; leave out for an unconditional model.
        seeds: one for each sample.
        most: the largest strength that is tried; the share at 0 and there have to lie on both sides.
        rounds: of halving, after those two.
        batch: samples in one batch.
        progress: called with (done, total, what).
        **settings: how it is sampled, as in ``Sampling``.

    Raises:
        ValueError: for a share that is not between those at 0 and at ``most`` (the message says them), and
            for numbers out of range.
    """
    samples = Samples.of(model, prompts, seeds, batch, settings)
    if len(share) != 2:
        raise UsageError(f"share is {share}; it is a class and its share: ('man', 0.5)")
    name, wanted = share
    if not (0 < most < math.inf and 0 <= wanted <= 1 and 1 <= rounds <= 100):
        raise UsageError(
            f"most is {most}, share {wanted}, rounds {rounds}; above 0, from 0 to 1, from 1 to 100"
        )
    tried: dict[float, float] = {}

    def seen(strength: float) -> float:
        latents = samples.painted(f"push({strength:g})", push(strength)).latents
        said = [x for x in labelled(label, samples.pictures(latents)) if x is not None]
        tried[strength] = said.count(name) / len(said) if said else math.nan
        show(len(tried), rounds + 2, "strengths")
        return tried[strength]

    with showing(progress) as show:
        low, high = 0.0, most
        first, last = seen(low), seen(high)
        if not min(first, last) <= wanted <= max(first, last):
            show(rounds + 2, rounds + 2, "strengths")
            raise UsageError(
                f"{name!r} has a share of {first:.3f} at strength 0 and {last:.3f} at {most:g}, and "
                f"{wanted:g} does not lie between; push the other way, or further"
            )
        for _ in range(rounds):
            if min(abs(s - wanted) for s in tried.values()) < 0.5 / len(seeds):
                break
            middle = (low + high) / 2
            low, high = (middle, high) if (seen(middle) < wanted) == (first < last) else (low, middle)
        show(rounds + 2, rounds + 2, "strengths")
    best = min(tried, key=lambda s: abs(tried[s] - wanted))
    frame = pd.DataFrame({"strength": list(tried), "share": list(tried.values())})
    return CalibratedStrength(best, tried[best], wanted, frame)
