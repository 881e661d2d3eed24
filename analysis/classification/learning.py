"""Weights of noise levels that tell labelled pictures best.

Jeong et al. 2025 (arXiv:2505.17955, "Diffusion Classifiers Understand Compositionality, but Conditions
Apply") fit weights of timesteps where pictures are unlike those that a model paints. Theirs are of a cross
entropy by gradient descent; ours are a logistic regression on pairs: each picture's right prompt against
each wrong one, by the differences of their errors at each level. Ridge, with its strength by
cross-validation over pictures, and no weight below 0: that would count errors in favour of a prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from ...models.arguments import checked
from ...models.base import Model
from ...models.errors import UsageError
from ...models.progress import Progress, showing
from ...probes.denoising_errors import Strata
from ...probes.trace import Trace
from .rows import Rows, clean_latents, label_positions
from .step_weights import StepWeights, hashes, weights_of

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Inverse strengths of the ridge that are tried, strongest first; of several as right it is the first."""
Array: TypeAlias = NDArray[np.float64]


@checked
def learn_weights(  # noqa: PLR0913  # one fit, all its settings by name
    model: Model,
    images: Tensor | Trace,
    prompts: Sequence[str],
    labels: Sequence[str],
    *,
    folds: int = 5,
    log_snr: tuple[float, float] | None = None,
    levels: int = 6,
    draws: int = 1,
    seed: int = 0,
    batch: int = 32,
    store: str | Path | None = None,
    progress: Progress | None = None,
) -> StepWeights:
    """Learn from labelled pictures how much errors at each noise level should count.

    Args:
        model: an opened model that reads prompts.
        images: pictures [image, channel, height, width] in 0..1, or a run, whose final latents are taken.
        prompts: what to choose from, as in ``classify``.
        labels: the prompt that is right, for each picture.
        folds: parts of the pictures, each of which is left out once.
        log_snr: range of noise levels, as in ``Strata``; ``classify`` has to be given the same.
        levels: number of levels; the same again.
        draws: noises at each level.
        seed: of the noise of the first picture, and of the folds.
        batch: rows in one call of the network.
        store: a folder that keeps what was computed, shared with ``classify``.
        progress: called with (done, total, what); without it a bar comes by itself.

    Returns:
        StepWeights. Their cross-validated accuracy is the best of those of five strengths, so a little high:
        what they are worth is what ``classify`` reaches with them on pictures that they do not know.

    Raises:
        LookupError: for a label that is none of the prompts.
        ValueError: for numbers of labels or folds that do not fit, errors that speak against the labels at
            every level, and what ``classify`` refuses.
    """
    how = Strata(log_snr=log_snr, levels=levels, draws=draws, seed=seed)
    rows = Rows.of(model, prompts, how, batch=batch, store=store)
    clean = clean_latents(model, images)
    right = label_positions(labels, prompts, len(clean))
    if not 2 <= folds <= len(clean):
        raise UsageError(f"folds is {folds} of {len(clean)} pictures; it lies between 2 and their number")
    plain = {name: weights_of(name, rows.plan, [])[1].numpy() for name in ("nats", "v")}
    with showing(progress) as show:
        found = [rows.errors(x, i, show, torch.ones(levels), None).mean(0) for i, x in enumerate(clean)]
    pairs = _pairs(torch.stack(found).numpy(), right)
    tried = _cross_validated(pairs, folds, seed)
    best = int(np.argmax(tried))
    weight = _fitted(pairs, STRENGTHS[best])
    if not weight.any():
        raise UsageError(
            "errors are no lower under the labels than under the other prompts, at no level; look at the "
            "labels, or give more pictures or draws"
        )
    known = sorted(set().union(*hashes(images, clean)))
    about = {**rows.plan.about, "chosen": STRENGTHS[best], "cross_validated": tried[best], "seed": seed,
             "width": rows.plan.width,
             "pictures": len(clean), "learned_on": known, "prompts": list(prompts),
             **{name: _accuracy(pairs, w) for name, w in plain.items()}}  # fmt: skip
    return StepWeights(
        _labelled(weight * plain["nats"].sum() / weight.sum(), tried, rows.plan.log_snr, about)
    )


def _pairs(errors: Array, right: Sequence[int]) -> Array:
    """How much larger errors [image, level, prompt] are under each wrong prompt [image, wrong, level]."""
    apart = [np.delete(e - e[:, [r]], r, axis=1).T for e, r in zip(errors, right, strict=True)]
    return np.stack(apart)


def _accuracy(pairs: Array, weight: Array) -> float:
    """The share of pictures whose right prompt comes before all others; a tie is wrong."""
    return float((pairs @ weight > 0).all(1).mean())


def _cross_validated(pairs: Array, folds: int, seed: int) -> list[float]:
    """The accuracy of each strength on pictures that were left out, each once."""
    from sklearn.model_selection import KFold  # noqa: PLC0415  # slow to import

    splits = list(KFold(folds, shuffle=True, random_state=seed % 2**32).split(pairs))
    found = []
    for strength in STRENGTHS:
        rights = [_accuracy(pairs[out], _fitted(pairs[known], strength)) * len(out) for known, out in splits]
        found.append(sum(rights) / len(pairs))
    return found


def _fitted(pairs: Array, strength: float) -> Array:
    """Weights [level] of a logistic regression; what would be below 0 is left out, the rest fitted anew."""
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415  # slow to import

    flat = pairs.reshape(-1, pairs.shape[-1])
    scale = np.sqrt((flat**2).mean(0))
    weight = np.zeros(len(scale))
    active = scale > 0
    while active.any():
        x = flat[:, active] / scale[active]
        both, sides = np.concatenate([x, -x]), np.repeat([1, 0], len(x))
        each = np.full(len(both), 0.5 / pairs.shape[1])  # a picture counts as one, however many are wrong
        fit = LogisticRegression(C=strength, fit_intercept=False, max_iter=1000)
        found = fit.fit(both, sides, each).coef_[0]
        if (found >= 0).all():
            weight[active] = found / scale[active]
            break
        active[active] = found > 0
    return weight


def _labelled(
    weight: Array, tried: Sequence[float], log_snr: Sequence[float], about: Mapping[str, object]
) -> xr.Dataset:
    data = {"weight": ("level", weight), "accuracy": ("strength", list(tried))}
    coords = {"log_snr": ("level", list(log_snr)), "c": ("strength", list(STRENGTHS))}
    return xr.Dataset(data, coords, dict(about))
