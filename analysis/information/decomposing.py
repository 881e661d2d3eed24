"""Partial information decomposition of the words of a prompt, of all pairs from one bank of predictions.

DiffusionPID (Dewan, Zawar et al., NeurIPS 2024, "DiffusionPID: Interpreting Diffusion via Partial
Information Decomposition"), on the estimates of ``mutual``. n words take 1 + n + n (n - 1) / 2 conditions; a
call for each pair, with three conditions for each of its three informations, takes 9 n (n - 1) / 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, TypeAlias, Unpack

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from ...models.arguments import checked
from ...models.base import Model
from ...models.progress import Progress
from ...probes.denoising_errors import ErrorBank, error_bank
from ...probes.denoising_errors.result import Estimator, Weight
from ...probes.denoising_errors.strata import StrataOptions
from ...probes.trace import Trace
from .mutual import MAPS, about, check_reads, coordinates
from .pid_result import Decomposition
from .redundancy import PARTS, Redundancy, checked_priors, followed, mixture, parts
from .words import Word, chosen_words, without

Informations: TypeAlias = list[tuple[str, str]]
"""(informed, base) of I1, I2 and I12 of one pair."""
Array: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]


@checked
def pid(  # noqa: PLR0913  # one decomposition, all its settings by name
    model: Model,
    images: Tensor | Trace,
    prompt: str,
    words: Sequence[str] | None = None,
    *,
    redundancy: Redundancy = "min",
    given_rest: bool = False,
    estimator: Estimator = "standard",
    log_prior: Mapping[str, float] | None = None,
    batch: int = 32,
    store: str | Path | None = None,
    progress: Progress | None = None,
    **strata: Unpack[StrataOptions],
) -> Decomposition:
    """Split what two words tell of pictures: alike, each alone, only together; for each pair of some words.

    Redundancy R, unique parts U1 and U2 and synergy S, with R + U1 = I1, R + U2 = I2, R + U1 + U2 + S = I12.
    Each may be below 0: S where the words together tell less than the better one alone, R and U where a word
    misleads (with the ``orthogonal`` estimate and ``"min"`` never). Costs (1 + n + pairs) conditions x levels
    x 2 x draws rows a picture.

    Args:
        model: an opened model that reads prompts.
        images: pictures [image, channel, height, width] in 0..1, or a run, whose final latents are taken.
        prompt: what they show.
        words: two words or phrases of it, or more: then all pairs of them; ``"cook:2"`` is the second cook.
            None is every word of the prompt.
        redundancy: ``"min"``, the smaller information, of each picture and again in each cell; ``"i_min"``,
            the mean of that over the pictures, which count as draws of what the words speak of (Williams and
            Beer's expectation of the least specific information); ``"finn_lizier"``, which needs priors
            and depends on their units more than on the model (see docs).
        given_rest: what the words tell given the rest of the prompt, left out of it in their places, rather
            than each as a text of its own.
        estimator: ``"standard"``: which text foretells the noise; ``"orthogonal"``: how far a text moves the
            prediction, right or wrong. As in ``mutual_information``.
        log_prior: log p(word) in nats, by word, for ``"finn_lizier"``.
        batch: rows in one call of the network.
        store: a folder that keeps what was computed: a call that was stopped goes on, and another
            redundancy or estimator costs nothing.
        progress: called with (done, total, what); without it a bar comes by itself.
        **strata: noise levels and draws, as in ``Strata``; a standard error that is asked for is one of I1,
            I2 and I12.

    Returns:
        A Decomposition; ``v_map`` is NaN with ``"finn_lizier"``, whose priors are nats. Its standard errors
        take the word that R follows as given; near a tie, where that is uncertain, they are too small.

    Raises:
        LookupError: for words that are not in the prompt, and words without a prior.
        ValueError: for one word alone, words that stand in several places without saying which, a model that
            reads no text, and pictures that it cannot take.
    """
    check_reads(model)
    chosen = chosen_words(prompt, words)
    surprisals = checked_priors(redundancy, log_prior, [w.name for w in chosen])
    pairs = list(combinations(chosen, 2))
    conditions, needed = conditions_of(prompt, chosen, pairs, given_rest)
    bank = error_bank(
        model,
        images,
        conditions,
        pairs=list(dict.fromkeys(p for three in needed for p in three)),
        estimator=estimator,
        batch=batch,
        store=store,
        progress=progress,
        **strata,
    )
    priors = [(surprisals[a.name], surprisals[b.name]) if surprisals else None for a, b in pairs]
    data = _labelled(bank, estimator, needed, priors, [(a.name, b.name) for a, b in pairs])
    said = {"prompt": prompt, "redundancy": redundancy, "given_rest": int(given_rest)}
    data = data.assign_attrs({**about(bank, estimator), **said})
    return Decomposition(_expected(data) if redundancy == "i_min" else data)


def conditions_of(
    prompt: str, words: Sequence[Word], pairs: Sequence[tuple[Word, Word]], given_rest: bool
) -> tuple[dict[str, str], list[Informations]]:
    """The texts by name, and for each pair which of them its three informations compare."""
    texts, needed = {}, []
    if not given_rest:
        texts = {"": "", **{w.name: w.text for w in words}}
        for a, b in pairs:
            both = f"{a.name} + {b.name}"
            texts[both] = f"{a.text} {b.text}"
            needed.append([(a.name, ""), (b.name, ""), (both, "")])
        return texts, needed
    texts = {"": prompt, **{f"- {w.name}": without(prompt, [w]) for w in words}}
    for a, b in pairs:
        rest = f"- {a.name} - {b.name}"
        texts[rest] = without(prompt, [a, b])
        needed.append([(f"- {b.name}", rest), (f"- {a.name}", rest), ("", rest)])
    return texts, needed


def _labelled(
    bank: ErrorBank,
    estimator: Estimator,
    needed: Sequence[Informations],
    priors: Sequence[tuple[float, float] | None],
    names: Sequence[tuple[str, str]],
) -> xr.Dataset:
    nats, errors = zip(
        *(whole_parts(bank, estimator, three, h) for three, h in zip(needed, priors, strict=True)),
        strict=True,
    )
    dims = ("image", "pair", "part")
    data: dict[str, tuple[tuple[str, ...], Array]] = {
        "nats": (dims, np.stack(nats, 1)),
        "stderr": (dims, np.stack(errors, 1)),
    }
    for name, weight in MAPS.items():
        data[name] = ((*dims, "y", "x"), maps_of_parts(bank, estimator, needed, priors, weight))
    coords = {
        "image": range(len(bank.gram)),
        "pair": [f"{a} + {b}" for a, b in names],
        "first": ("pair", [a for a, _ in names]),
        "second": ("pair", [b for _, b in names]),
        "part": list(PARTS),
        **coordinates(bank),
    }
    return xr.Dataset(data, coords)


def maps_of_parts(
    bank: ErrorBank,
    estimator: Estimator,
    needed: Sequence[Informations],
    priors: Sequence[tuple[float, float] | None],
    weight: Weight,
) -> Array:
    """The parts in each cell, [image, pair, part, y, x]; NaN where priors, which are nats, do not fit."""
    cells = []
    for three, h in zip(needed, priors, strict=True):
        i1, i2, i12 = (bank.map(*pair, estimator, weight) for pair in three)
        split = parts(i1, i2, i12, h).movedim(-1, 1).numpy()
        cells.append(split if weight == "nats" or h is None else np.full_like(split, np.nan))
    return np.stack(cells, 1)


def whole_parts(
    bank: ErrorBank, estimator: Estimator, three: Informations, h: tuple[float, float] | None
) -> tuple[Array, Array]:
    """The parts of each picture [image, part], and their standard errors, of noise that they share."""
    densities = [bank.densities(*pair, estimator) for pair in three]
    i1, i2, i12 = (bank.integral(d)[0] for d in densities)
    second, _ = followed(i1, i2, h)
    errors = torch.empty(len(i1), len(PARTS), dtype=torch.float64)
    for image, word in enumerate(second.tolist()):
        told = torch.stack([d[image] for d in densities])
        for part, mixed in enumerate(torch.einsum("pi,idl->pdl", mixture(word), told)):
            errors[image, part] = bank.integral([mixed])[1][0]
    return parts(i1, i2, i12, h).numpy(), errors.numpy()


def _expected(data: xr.Dataset) -> xr.Dataset:
    """The mean over pictures, as one. Its error takes them as draws; of a single one it is the noise's."""
    n = data.sizes["image"]
    mean = data.drop_vars(["draws", "reached"]).mean("image", keep_attrs=True)
    spread = data["nats"].std("image", ddof=1) if n > 1 else data["stderr"].isel(image=0)
    mean["stderr"] = spread / n**0.5
    return mean.expand_dims(image=[0]).transpose("image", "pair", "part", ...)
