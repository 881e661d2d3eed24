"""Fits LinearAG: least squares of the unconditional output on the outputs before it."""

from __future__ import annotations

import math
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

FEWEST = 10
"""Numbers to fit on for each number that is fitted."""
RCOND = 1e-4
"""Outputs of neighbouring steps are nearly dependent; below this, errors would be blown up step by step."""


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

    Least squares over all coordinates of all samples, in double precision, one fit a step: the unconditional
    output on the conditional ones up to that step and the unconditional ones before it. What will be
    estimated is an estimate here too, in the fits of later steps: fits on true histories alone, as written in
    the paper, explain more and blow their own errors up when they are used.

    Args:
        model: an opened model.
        prompts: one for each sample; 8 pictures are plenty, for a fit has two numbers a step.
        seeds: one for each sample.
        computed: steps at which the unconditional branch will be computed; ``range(0, 20, 2)``.
        **settings: how it is sampled, as in ``Sampling``; guidance is a scale or a CFG, and the result's.

    Raises:
        ValueError: for steps that the run does not have, runs that are not guided, and too few samples.

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
    if len(cond[0]) < FEWEST * 2 * n:
        raise UsageError(
            f"{len(prompts)} samples have {len(cond[0])} numbers for fits of up to {2 * n - 1}; give "
            f"{math.ceil(FEWEST * 2 * n * len(prompts) / len(cond[0]))} samples or more"
        )
    a, b, r2, known = torch.zeros(n, n), torch.zeros(n, n), [], list[Tensor]()
    for t in range(n):
        x = torch.stack([*cond[: t + 1], *known], 1)
        found = _fit(x, uncond[t])
        a[t, : t + 1], b[t, :t] = found[: t + 1].float(), found[t + 1 :].float()
        r2.append(1 - float((uncond[t] - x @ found).square().sum() / uncond[t].square().sum()))
        known.append(uncond[t] if t in computed else x @ found)
    return LinearAG(guidance, a, b, tuple(sorted(computed)), tuple(s.t for s in steps), tuple(r2))


def _fit(x: Tensor, y: Tensor) -> Tensor:
    """Least squares of y [row] on x [row, feature], without a constant."""
    length: Tensor = x.norm(dim=0).clamp(min=torch.finfo(x.dtype).tiny)
    found: Tensor = torch.linalg.lstsq(x / length, y[:, None], rcond=RCOND, driver="gelsd").solution[:, 0]
    return found / length
