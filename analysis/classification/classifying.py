"""Classification by denoising: a picture shows the text under which its noise is foretold best.

Li et al. 2023 (arXiv:2303.16203, "Your Diffusion Model is Secretly a Zero-Shot Classifier") and Clark &
Jaini 2023 (arXiv:2303.15233): ``argmin_c 1/2 Σ_k w_k E |eps - eps_hat(z_k, c)|²``, with the same noise for
all texts. It is a reduction of the predictions that information is made of: with weights in nats the
difference of two scores is the standard estimate of log p(x | c) / p(x | c'), and a margin is that of the
first two. Where ours differs: levels are strata of the log-SNR with antithetic noise, and prompts are
dropped by a test with a stated error rate where the published code keeps fixed numbers of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from ...models.arguments import checked
from ...models.base import Model
from ...models.errors import UsageError
from ...models.progress import Progress, showing
from ...probes.denoising_errors import Strata
from ...probes.denoising_errors.result import Weight
from ...probes.denoising_errors.strata import standard_error
from ...probes.trace import Trace
from .pruning import TIE
from .result import Classification
from .rows import Rows, clean_latents
from .step_weights import StepWeights, hashes, weights_of


@checked
def classify(  # noqa: PLR0913  # one classifier, all its settings by name
    model: Model,
    images: Tensor | Trace,
    prompts: Sequence[str],
    *,
    weights: Weight | Sequence[float] | StepWeights = "v",
    prune: float | None = None,
    shared: bool = True,
    log_snr: tuple[float, float] | None = None,
    levels: int = 6,
    draws: int = 1,
    seed: int = 0,
    batch: int = 32,
    store: str | Path | None = None,
    progress: Progress | None = None,
) -> Classification:
    """Choose for each picture the prompt under which the denoiser foretells its noise best.

    Costs 2 rows for each picture, prompt, level and draw; guidance is 1, the network as it was trained.

    Args:
        model: an opened model that reads prompts.
        images: pictures [image, channel, height, width] in 0..1, or a run, whose final latents are taken.
        prompts: what to choose from, at least two; the same for all pictures.
        weights: what errors at each level count. ``"nats"``: as they are, and margins are nats; ``"v"``:
            times 1 + 1/SNR, as errors of the velocity, no nats, and mostly right more often; a number for
            each level, noisiest first; or learned ones (``learn_weights``), never on pictures they know.
        prune: the stated rate, for each picture, at which the answer may be another than without it: from the
            second draw on, prompts that are clearly worse than the best get no more rows. None drops none.
        shared: whether prompts share their noise, as they should; False shows why.
        log_snr: range of noise levels, as in ``Strata``.
        levels: number of levels.
        draws: noises at each level, each with its negative; of a single one standard errors come from
            neighbouring levels, and are too large where weights jump.
        seed: of the noise of the first picture; picture i has seed + i.
        batch: rows in one call of the network.
        store: a folder that keeps what was computed: a call that was stopped goes on.
        progress: called with (done, total, what); without it a bar comes by itself.

    Raises:
        ValueError: for a model that reads no text, prompts that would always tie, weights of other levels,
            pictures that the model cannot take or that the weights were learned on, and too few draws.
        RuntimeError: if the network predicts what is no number.

    >>> from denoscope.models.synthetic.analytic import Analytic, two_by_two
    >>> model = Analytic(two_by_two())
    >>> points = model.denoiser.draw(3, seed=0, condition={"shape": "circle"})
    >>> classify(model, points, ["circle", "square"]).chosen
    ['circle', 'circle', 'circle']
    """
    how = Strata(log_snr=log_snr, levels=levels, draws=draws, seed=seed)
    _check_pruning(prune, draws)
    rows = Rows.of(model, prompts, how, shared=shared, batch=batch, store=store)
    clean = clean_latents(model, images)
    name, weight = weights_of(weights, rows.plan, hashes(images, clean))
    with showing(progress) as show:
        found = [rows.errors(x, i, show, weight, prune) for i, x in enumerate(clean)]
    about = {**rows.plan.about, "width": rows.plan.width, "seed": seed, "level_weights": name,
             "prune": prune or 0.0, "shared": int(shared)}  # fmt: skip
    return Classification(_labelled(found, weight, prompts, rows.plan.log_snr).assign_attrs(about))


def _check_pruning(prune: float | None, draws: int) -> None:
    if prune is None:
        return
    if not 0 < prune < 1:
        raise UsageError(f"prune is {prune}; it is a rate between 0 and 1, like 0.01, or None for no pruning")
    if draws < 3:
        raise UsageError(
            f"draws is {draws}, and pruning looks at two before it spares any; give more, like draws=8"
        )


def _labelled(
    found: Sequence[Float[Tensor, "draw level prompt"]],
    weight: Float[Tensor, " level"],
    prompts: Sequence[str],
    log_snr: Sequence[float],
) -> xr.Dataset:
    parts = [_decided(0.5 * weight[:, None] * errors) for errors in found]
    first, second, scores, behind, stderr, draws = (np.stack(p) for p in zip(*parts, strict=True))
    at = np.arange(len(parts))
    tied = behind[at, second] <= TIE * scores[at, first]
    names, both = np.array(list(prompts), dtype=object), ("image", "prompt")
    data = {
        "scores": (both, scores),
        "behind": (both, behind),
        "stderr": (both, stderr),
        "draws": (both, draws),
        "chosen": ("image", np.where(tied, "", names[first]).astype(str)),
        "second": ("image", names[second].astype(str)),
        "tied": ("image", tied),
        "weight": ("level", weight.numpy()),
    }
    coords = {"image": at, "prompt": list(prompts), "log_snr": ("level", list(log_snr))}
    rows = {"rows": 2 * len(log_snr) * int(draws.sum()),
            "full_rows": 2 * len(log_snr) * len(found[0]) * draws.size}  # fmt: skip
    return xr.Dataset(data, coords, rows)


def _decided(weighted: Float[Tensor, "draw level prompt"]) -> tuple[np.ndarray, ...]:
    """The first and the second of one picture, and of each prompt score, distance, its error, and draws.

    Who was dropped has no score of the later draws; what it is behind the chosen one is known of the earlier
    ones, and that added to the chosen one's score is what can be compared.
    """
    draws = (~weighted[:, 0].isnan()).sum(0)
    whole = torch.nonzero(draws == draws.max())[:, 0]
    totals = weighted[: int(draws.max()), :, whole].mean(0).sum(0)
    best = int(whole[totals.argmin()])
    behind, stderr = torch.zeros(2, len(draws), dtype=weighted.dtype)
    for j, n in enumerate(draws.tolist()):
        if j != best:
            apart = weighted[:n, :, j] - weighted[:n, :, best]
            behind[j], stderr[j] = apart.mean(0).sum(), standard_error(apart)
    rivals = [j for j in (whole.tolist() if len(whole) > 1 else range(len(draws))) if j != best]
    second = min(rivals, key=lambda j: float(behind[j]))
    scores = totals.min() + behind
    return tuple(np.asarray(x) for x in (best, second, scores, behind, stderr, draws))
