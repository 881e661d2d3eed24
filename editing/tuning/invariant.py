"""Invariant tuning: a small change after which no group of pictures is met worse than others, without labels.

Hou, Wu, Xu, Huang, Bai, Wu, Bian: InvDiff: Invariant Guidance for Bias Mitigation in Diffusion Models, KDD
2025 (arXiv:2412.08480), the invariant objective. With L_g the mean denoising error of group g,

    loss = mean_g L_g + penalty var_g L_g

The authors learn a network d of its own and sample with r eps_d + (1 - r) eps. Here it is a change of low
rank of the model's own weights, so that it is an Edit: ``r * edit`` is the same to first order in the change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ...models.arguments import check_fields, checked
from ...models.base import Model, Prompt
from ...models.errors import UsageError
from ...models.fit import fit
from ...models.progress import Progress
from ...models.run.levels import Step
from ...models.run.prediction import scales
from ...models.site import Site
from ...probes.denoising_errors.conditions import latents_of, read_conditions
from ..edit import Edit
from .factors import Asked, change_of, linear_weights, moved, started

BATCH = 32
"""Pictures at a time where the fit is looked at."""


@dataclass(frozen=True)
class InvariantFit:
    """How it is learned. Paper: another network, penalty 1, rate 1e-4, 10,000 steps.

    Args:
        penalty: how much the variance over groups counts beside the mean.
        rank: of the change of each weight.
        steps: of AdamW.
        rate: its learning rate.
        draws: noised pictures at each step.
        levels: noise levels, those of a run of so many steps.
        seed: of what is drawn.

    Raises:
        ValueError: for numbers that make no fit.
    """

    penalty: float = 1.0
    rank: int = 8
    steps: int = 300
    rate: float = 2e-3
    draws: int = 32
    levels: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("rank", "steps", "draws", "levels"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; at least 1")
        if not 0 < self.rate < float("inf") or not 0 <= self.penalty < float("inf"):
            raise UsageError(
                f"rate is {self.rate}, penalty {self.penalty}; rate is above 0, penalty 0 or more"
            )


@checked
def invariant(
    model: Model,
    images: Float[Tensor, "picture channel height width"],
    groups: Float[Tensor, "sample group"],
    *,
    prompts: Sequence[str | Prompt] | None = None,
    sites: Sequence[str | Site] | None = None,
    settings: InvariantFit | None = None,
    progress: Progress | None = None,
) -> Edit:
    """Return an Edit after which the model's errors on groups of pictures are small, and alike.

    ``0.5 * edit`` goes half as far. Its note holds the mean of the groups' errors and how far they are apart
    (standard deviation), before and after, on noise that nothing was learned from. The model is not changed.

    Args:
        model: an opened model, with or without text.
        images: pictures in 0..1.
        groups: each picture's share in each group, 1 in all: ``latent_groups(...).shares``, or 0 and 1.
        prompts: what each picture shows; None for a model that reads no text, or for what it makes of none.
        sites: whose linear layers are changed, patterns too; None is all projections of the denoiser's
            attention within the picture, and of its joint attention.
        settings: of the fit; None is ``InvariantFit()``.
        progress: called with (done, total, what).

    Raises:
        ValueError: for shares that do not fit the pictures, are below 0 or not 1 in all, a group without a
            picture, fewer than two groups, pictures that the model cannot take, and sites without a linear
            layer of the denoiser.
        LookupError: for sites that the model does not have.
        RuntimeError: if the loss is not finite.

    >>> from denoscope.models.synthetic.tiny import tiny_ddim
    >>> model, pictures = load(tiny_ddim()), torch.rand(4, 3, 8, 8)
    >>> how = InvariantFit(rank=1, steps=2, draws=4, levels=3)
    >>> edit = invariant(model, pictures, torch.eye(2).repeat(2, 1), settings=how)
    >>> sorted(edit.note["groups"])
    ['after', 'before']
    """
    how, shares = settings or InvariantFit(), _checked_shares(groups, len(images))
    weights = linear_weights(model, sites)
    with torch.no_grad():
        clean = latents_of(model, images)
        texts = {"own": "" if prompts is None else prompts}
        read = [one[0] for one in read_conditions(model, texts, len(images))]
    steps, factors, asked = model.steps(how.levels), started(weights, how.rank, how.seed), Asked(model)
    shares = shares.to(clean)

    def errors(some: Tensor, step: Step, s: float, source: torch.Generator) -> Tensor:
        noise = torch.randn(len(some), *clean.shape[1:], generator=source).to(clean)
        a, b = scales(model.scheduler, step, clean)
        at, own = [step] * len(some), [read[int(i)] for i in some]
        said = asked.with_weights(moved(weights, factors, s), "eps", a * clean[some] + b * noise, at, own)
        return (said - noise).square().flatten(1).mean(1)

    def loss(_: int, source: torch.Generator) -> Tensor:
        some = torch.randint(len(clean), (how.draws,), generator=source)
        step = steps[int(torch.randint(len(steps), (), generator=source))]  # one, so that groups compare
        each = _group_errors(errors(some, step, 1.0, source), shares[some])
        return each.mean() + how.penalty * each.var(unbiased=False)

    adamw: Any = partial(torch.optim.AdamW, lr=how.rate)
    fit(factors, loss, steps=how.steps, optimizer=adamw, seed=how.seed, progress=progress)
    met = {}
    for when, s in (("before", 0.0), ("after", 1.0)):
        met[when] = _met(partial(errors, s=s), shares, steps, torch.Generator().manual_seed(how.seed + 1))
    note = {"settings": asdict(how), "pictures": len(images), "groups": met}
    return Edit.of(model, {n: change_of(factors, n) for n in weights}, method="invariant", **note)


def _checked_shares(groups: Tensor, pictures: int) -> Tensor:
    """Shares of pictures in groups.

    Raises:
        UsageError: for shares that are none.
    """
    if groups.ndim != 2 or len(groups) != pictures or groups.shape[1] < 2:
        raise UsageError(
            f"groups are {tuple(groups.shape)} for {pictures} pictures; give [picture, group], of two groups "
            "or more: latent_groups(...).shares"
        )
    if bool((groups < 0).any()) or not torch.allclose(groups.sum(1), torch.ones(()).to(groups), atol=1e-4):
        raise UsageError("groups hold shares below 0, or a picture whose shares are not 1 in all")
    if bool((groups.sum(0) <= 0).any()):
        raise UsageError(f"group {int(groups.sum(0).argmin())} holds no picture; leave it out")
    return groups.detach()


def _group_errors(errors: Tensor, shares: Tensor) -> Tensor:
    """The mean error of each group of which something was drawn [group]."""
    whole = shares.sum(0)
    there = whole > 0
    return (shares * errors[:, None]).sum(0)[there] / whole[there]


@torch.no_grad()
def _met(
    errors: Callable[..., Tensor], shares: Tensor, steps: Sequence[Step], source: torch.Generator
) -> dict[str, float]:
    """Mean of the groups' errors and how far they are apart, over all pictures, and the mean over levels."""
    parts = torch.arange(len(shares)).split(BATCH)
    levels = [torch.cat([errors(some, step, source=source) for some in parts]) for step in steps]
    each = torch.stack([_group_errors(level, shares) for level in levels])
    return {"mean": float(each.mean()), "apart": float(each.std(1, unbiased=False).mean())}
