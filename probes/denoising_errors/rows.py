"""The network's predictions at some levels, under all conditions, reduced before the next levels are made."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor

from ...models.arguments import batches
from ...models.base import Model, Prompt
from ...models.errors import StateError
from ...models.run.levels import Step
from ...models.run.prediction import scales

Gram = Float[Tensor, "level condition condition"]
Maps = Float[Tensor, "level pair estimator y x"]


def cells(model: Model, values: Tensor) -> Float[Tensor, "... y x"]:
    """Sum values [..., *latent_shape] over what lies in one place: channels, or a token's own.

    A point without places (the exact denoiser's) has a cell for each coordinate, in one row.
    """
    axes = len(model.latent_shape)
    if axes == 1:
        return values.unsqueeze(-2)
    if axes == 3:
        return values.sum(-3)
    packed: Tensor = values.sum(-1).unflatten(-1, model.token_grid)  # type: ignore[attr-defined]
    return packed


def reduced(
    model: Model,
    clean: Float[Tensor, "..."],
    noise: Float[Tensor, "level ..."],
    steps: Sequence[Step],
    prompts: Sequence[Prompt],
    *,
    pairs: Sequence[tuple[int, int]],
    batch: int,
) -> tuple[Gram, Maps]:
    """Return inner products of residuals, and the densities of pairs in each cell; means of antithetic pairs.

    Args:
        model: an opened model.
        clean: latents of one picture.
        noise: one for each level; its negative is taken too.
        steps: the level of each noise.
        prompts: the distinct conditions.
        pairs: (informed, base), as positions in ``prompts``.
        batch: rows in one call.
    """
    residuals = _residuals(model, clean, torch.stack([noise, -noise], 1), steps, prompts, batch=batch)
    flat = residuals.flatten(3)
    gram = torch.einsum("lsid,lsjd->lij", flat, flat) / 2
    maps = []
    for informed, base in pairs:
        a, b = residuals[:, :, informed], residuals[:, :, base]
        both = torch.stack([b.square() - a.square(), (b - a).square()], 2).mean(1)
        maps.append(cells(model, 0.5 * both))
    kept = torch.stack(maps, 1) if maps else torch.zeros(len(steps), 0, 2, 1, 1, dtype=gram.dtype)
    return gram.cpu(), kept.cpu()


def _residuals(
    model: Model,
    clean: Tensor,
    noise: Float[Tensor, "level sign ..."],
    steps: Sequence[Step],
    prompts: Sequence[Prompt],
    *,
    batch: int,
) -> Float[Tensor, "level sign condition ..."]:
    """Predicted noise less noise, in double precision: differences of near equals are what is asked for."""
    rows = list(product(range(len(steps)), range(2), range(len(prompts))))
    found = []
    for part in batches(len(rows), batch):
        levels, signs, conditions = zip(*rows[part], strict=True)
        at = [steps[k] for k in levels]
        eps = noise[list(levels), list(signs)].double()
        a, s = scales(model.scheduler, at, eps)
        x = (a * clean.double() + s * eps).to(model.dtype)
        with torch.no_grad():
            out = model.denoise(x, at, [prompts[c] for c in conditions])
            found.append(model.to_eps(x.double(), out.double(), at) - eps)
        if not bool(torch.isfinite(found[-1]).all()):
            bad = next(k for k, r in zip(levels, found[-1], strict=True) if not torch.isfinite(r).all())
            raise StateError(
                f"{model.name} predicts NaN or infinite values at log_snr {steps[bad].log_snr:.3g}; open it "
                "in a wider number format (dtype=torch.float32)"
            )
    every: Tensor = torch.cat(found).unflatten(0, (len(steps), 2, len(prompts)))
    return every
