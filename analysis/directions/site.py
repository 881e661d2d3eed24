"""Directions at a site, from pairs of prompts: difference of means, principal component, probe, Jacobian."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Unpack

import torch
from jaxtyping import Float
from torch import Tensor

from ...models.arguments import batches, checked
from ...models.base import Model
from ...models.errors import UsageError
from ...models.progress import Progress, showing
from ...models.run.context import When
from ...models.run.sampling import Sampling, SamplingOptions
from ...models.site import Site
from ...models.store.provenance import provenance
from ...probes.direction import Direction
from ...probes.directions.moments import check_pairs
from ...probes.trace import trace
from .jacobian import jacobian_directions
from .probing import probe


@dataclass(frozen=True, eq=False)
class Seen:
    """Activations of pairs of prompts, each a mean over the site's places.

    Args:
        values: [class, pair, seed, step, channel]; the positive class first.
        steps: their indices; one alone, 0, in text encoders.
    """

    values: Float[Tensor, "2 pair seed step channel"]
    steps: tuple[int, ...]

    @property
    def apart(self) -> Tensor:
        """The positive less the negative, [pair, seed, step, channel]."""
        return self.values[0] - self.values[1]


@checked
def site_direction(  # type: ignore[misc]  # noqa: PLR0913  # its "negative" are prompts of a class
    model: Model,
    site: Site | str,
    positive: Sequence[str],
    negative: Sequence[str],
    *,
    seeds: Sequence[int],
    method: Literal["mean", "pca", "probe", "jacobian"] = "mean",
    when: When = When(),
    batch: int = 16,
    progress: Progress | None = None,
    **settings: Unpack[SamplingOptions],
) -> Direction:
    """Return the direction at a site that tells two classes of prompts apart.

    Both prompts of a pair run with each seed. Activations are means over the site's places (pixels, tokens,
    heads); the channel axis is the layout's. Each direction is as long as the classes' means lie apart along
    it, so strength 1 moves the mean of the negative class onto that of the positive one, whatever the method:

    - "mean": their difference (contrastive activation addition, Rimsky et al. 2024);
    - "pca": the first principal component of the pairs' differences, not centred (Zou et al. 2023);
    - "probe": the normal of a logistic regression; its accuracy on held-out pairs stands in
      ``about["probe"]`` beside that for shuffled labels. What tells apart best need not be what moves;
    - "jacobian": along which the prediction changes most, at the middle one of the steps (Park et al. 2023);
      the prompts give its sign and length alone.

    ``about["gap_by_step"]`` says how far the means are apart along it, step by step; ``about["halves"]`` is
    the cosine of the differences of even and odd pairs.

    Args:
        model: an opened model.
        site: where.
        positive: prompts with the attribute.
        negative: the same without it, one for each.
        seeds: each prompt runs with each.
        method: see above.
        when: which steps and which branch are looked at.
        batch: samples in one batch of the denoiser.
        progress: called with (done, total, what).
        **settings: how it is sampled, as in ``Sampling``.

    Raises:
        ValueError: for prompts that do not pair, sites without channels, steps outside the run, activations
            that do not differ, and a probe of one pair alone.
        LookupError: for a site that the model does not have.
    """
    check_pairs(positive, negative)
    site = Site(str(site))
    seen = gathered(
        model, site, positive, negative, seeds=seeds, when=when, batch=batch, progress=progress, **settings
    )
    mean = seen.apart.mean((0, 1, 2))
    if not bool(mean.isfinite().all()) or not float(mean.norm()) > 0:
        raise UsageError(
            f"the activations of both classes have the same mean at {site}: nothing differs there"
        )
    along, told = mean, dict[str, Any]()
    if method == "pca":
        along = torch.linalg.svd(seen.apart.mean(2).flatten(0, 1), full_matrices=False)[2][0]
    elif method == "probe":
        along, told = probe(seen.values.mean(3))
    elif method == "jacobian":
        step = seen.steps[len(seen.steps) // 2]
        few = list(negative)[: max(1, batch // 2)]
        (found,) = jacobian_directions(model, site, few, seeds=list(seeds)[:1], step=step, rank=1, **settings)
        along, told = found.vector, {"singular_value": found.about["singular_value"]}
    unit = along / along.norm()
    gap = float(mean @ unit)
    if gap == 0:
        raise UsageError(f"the means at {site} do not differ along the direction that {method!r} found")
    by_step = seen.apart.mean((0, 1)) @ unit * (1 if gap > 0 else -1)
    about = provenance(
        model,
        **Sampling(**settings).described(model),
        method=method,
        pairs=[list(pair) for pair in zip(positive, negative, strict=True)],
        seeds=list(seeds),
        gap_by_step=[[i, float(g)] for i, g in zip(seen.steps, by_step, strict=True)],
        halves=_halves(seen),
        **({method: told} if told else {}),
    )
    return Direction(site, gap * unit, about=about)


@checked
def acting_steps(direction: Direction, share: float = 0.5) -> tuple[int, ...]:
    """Return the steps at which the classes are apart by at least a share of the largest gap.

    Args:
        direction: of ``site_direction``.
        share: of the largest gap.

    Raises:
        ValueError: for other directions, and shares outside of 0 to 1.
    """
    gaps = direction.about.get("gap_by_step")
    if not gaps:
        raise UsageError("the direction knows no gap_by_step; site_direction makes those that do")
    if not 0 <= share <= 1:
        raise UsageError(f"share is {share}; it lies between 0 and 1")
    most = max(gap for _, gap in gaps)
    return tuple(int(i) for i, gap in gaps if gap >= share * most)


def gathered(  # type: ignore[misc]  # noqa: PLR0913  # its "negative" are prompts of a class
    model: Model,
    site: Site,
    positive: Sequence[str],
    negative: Sequence[str],
    *,
    seeds: Sequence[int],
    when: When = When(),
    batch: int = 16,
    progress: Progress | None = None,
    **settings: Unpack[SamplingOptions],
) -> Seen:
    """Run all prompts with all seeds, and keep the site's mean activations."""
    layout = model.layout(site)
    if layout.channel_axis is None:
        raise UsageError(f"{site} has axes {layout.axes}, so no channels for a direction to act on")
    if batch < 1 or not seeds:
        raise UsageError(f"batch is {batch} and seeds are {list(seeds)}; give at least one of each")
    over = [i for i in range(1, len(layout.axes) + 1) if i != layout.channel_axis]
    texts = [t for some in (positive, negative) for t in some for _ in seeds]
    each = [*seeds] * (2 * len(positive))

    def mean(x: Tensor) -> Tensor:
        return x.mean(over) if over else x

    parts: list[Tensor] = []
    steps: tuple[int, ...] = (0,)
    with showing(progress) as show:
        for some in batches(len(texts), batch):
            run = trace(
                model, texts[some], seeds=each[some], sites=[site], when=when, reduce=mean, **settings
            )
            x = run[site].float()
            parts.append(x[None] if x.ndim == 2 else x)  # text encoders have no steps
            steps = steps if x.ndim == 2 else tuple(s.index for s in run.kept_steps)
            show(some.stop, len(texts), "samples")
    values = torch.cat(parts, 1).movedim(0, 1)
    return Seen(values.unflatten(0, (2, len(positive), len(seeds))), steps)


def _halves(seen: Seen) -> float | None:
    """How alike the mean differences of even and of odd pairs are; None for one pair."""
    pairs = seen.apart.mean((1, 2))
    if len(pairs) < 2:
        return None
    return float(torch.cosine_similarity(pairs[::2].mean(0), pairs[1::2].mean(0), 0))
