"""The methods of captum, for any scalar of a run: the one file that knows that library.

A method is given ``f``, from rows of inputs [row, ...] to one number each, so that nothing of captum's adds
hooks or looks at a network: what is attributed to is put into the run by ours.

    gradient              df/dx
    gradient_times_input  (x - x') . df/dx
    integrated_gradients  (x - x') . mean over the path from x' to x of df/dx  (Sundararajan et al. 2017)
    shapley               of players that are there or not: the mean of what each adds, over orders in which
                          they come (Shapley 1953; sampled: Strumbelj & Kononenko 2010)
    ablation              of such players: what is lost without each alone
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

Scalar: TypeAlias = Callable[[Tensor], Tensor]
"""From inputs [row, ...] to one number for each row."""
GRADIENTS = ("gradient", "gradient_times_input", "integrated_gradients")
GAMES = ("shapley", "ablation")
METHODS = (*GRADIENTS, *GAMES)
MOST_PLAYERS = 7
"""All orders of so many players are walked through, 5,040; more take a sample."""


def by_gradients(method: str, f: Scalar, x: Tensor, baseline: Tensor, points: int, batch: int) -> Tensor:  # noqa: PLR0917  # as captum has them
    """Return the attribution to each element of an input.

    Args:
        method: one of ``GRADIENTS``.
        f: differentiable.
        x: one input, [1, ...].
        baseline: of the same shape; ``gradient`` has none.
        points: of the path, by the rule of Gauss and Legendre.
        batch: rows in one call of ``f``.
    """
    from captum.attr import IntegratedGradients, Saliency  # noqa: PLC0415  # half a second

    if method == "integrated_gradients":
        found: Tensor = IntegratedGradients(f).attribute(
            x.detach(), baseline.detach(), n_steps=points, internal_batch_size=min(batch, points)
        )
        return found.detach()
    given = x.detach().clone().requires_grad_()
    slope: Tensor = Saliency(f).attribute(given, abs=False).detach()
    return slope if method == "gradient" else (x - baseline).detach() * slope


def by_games(method: str, f: Scalar, players: int, orders: int | None, seed: int = 0) -> Tensor:
    """Return what each player is worth, [player]; no coalition is asked twice.

    Args:
        method: one of ``GAMES``.
        f: from coalitions [row, player], 1 where a player is there.
        players: how many.
        orders: how many are drawn; None is all.
        seed: of the draw.
    """
    from captum.attr import FeatureAblation, ShapleyValues, ShapleyValueSampling  # noqa: PLC0415

    remembered = _remembered(f)
    every, how = torch.ones(1, players), dict[str, Any]()
    kind: Any = FeatureAblation if method == "ablation" else ShapleyValues
    if method == "shapley" and orders is not None:
        kind, how = ShapleyValueSampling, {"n_samples": orders}
    with torch.no_grad(), torch.random.fork_rng(devices=[]):  # captum draws from the global source
        torch.default_generator.manual_seed(seed)
        found: Tensor = kind(remembered).attribute(every, torch.zeros(1, players), **how)
    return found[0]


def _remembered(f: Scalar) -> Scalar:
    known: dict[tuple[float, ...], Tensor] = {}

    def look_up(coalitions: Tensor) -> Tensor:
        keys = [tuple(row) for row in coalitions.tolist()]
        for key, row in zip(keys, coalitions, strict=True):
            if key not in known:
                known[key] = f(row[None])[0].double()
        return torch.stack([known[key] for key in keys])

    return look_up
