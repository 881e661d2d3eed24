"""Fits LinearAG: least squares of the unconditional output on the outputs before it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Unpack

import torch
from torch import Tensor

from ...models.arguments import checked
from ...models.base import Model, Prompt
from ...models.errors import UsageError
from ...models.guidance.cfg import CFG
from ...models.guidance.linear_ag import LinearAG
from ...models.run.sampling import Sampling, SamplingOptions


@checked
def fit_linear_ag(
    model: Model,
    prompts: Sequence[str | Prompt],
    *,
    seeds: Sequence[int],
    computed: Collection[int],
    **settings: Unpack[SamplingOptions],
) -> LinearAG:
    """Fit the numbers of LinearAG on guided runs (Castillo et al. 2025).

    Ordinary least squares over all coordinates of all samples, in double precision, one fit a step: the
    unconditional output on the conditional ones up to that step and the unconditional ones before it.

    Args:
        model: an opened model.
        prompts: one for each sample; 8 pictures are plenty, for a fit has two numbers a step.
        seeds: one for each sample.
        computed: steps at which the unconditional branch will be computed; ``range(0, 20, 2)``.
        **settings: how it is sampled, as in ``Sampling``; guidance is a scale or a CFG, and that of the result.

    Raises:
        ValueError: for steps that the run does not have, and for runs that are not guided.

    >>> from denoscope.models.synthetic.tiny import tiny_sd
    >>> fit = fit_linear_ag(load(tiny_sd()), ["a cat"], seeds=[0], computed=[0, 2], guidance=4.0, steps=4)
    >>> fit
    LinearAG(CFG(scale=4.0, true_scale=None, rescale=0.0, steps=None), 4 steps, computed=(0, 2))
    """
    guidance = Sampling(**settings).guided(model)
    if not isinstance(guidance, CFG) or guidance.steps is not None or len(guidance.branches(model)) == 1:
        raise UsageError(f"guidance is {guidance}; LinearAG is fitted on runs that CFG guides at all steps")
    cond, uncond, steps = [], [], []
    with torch.no_grad():
        for state in model.sample(prompts, seeds=seeds, **settings):
            cond.append(state.outputs["cond"].flatten().double().cpu())
            uncond.append(state.outputs["uncond"].flatten().double().cpu())
            steps.append(state.step)
    n = len(steps)
    a, b, r2 = torch.zeros(n, n), torch.zeros(n, n), []
    for t in range(n):
        found, explained = _fit(torch.stack([*cond[: t + 1], *uncond[:t]], 1), uncond[t])
        a[t, : t + 1], b[t, :t] = found[: t + 1].float(), found[t + 1 :].float()
        r2.append(explained)
    return LinearAG(guidance, a, b, tuple(sorted(computed)), tuple(s.t for s in steps), tuple(r2))


def _fit(x: Tensor, y: Tensor) -> tuple[Tensor, float]:
    """Least squares of y [row] on x [row, feature], without a constant; and the share of y² explained."""
    found = torch.linalg.lstsq(x, y[:, None], driver="gelsd").solution[:, 0]  # columns are nearly dependent
    left = (y - x @ found).square().sum() / y.square().sum()
    return found, 1 - float(left)
