"""What each word of a prompt tells of a picture beyond all others, and its pairs; of one bank.

Conditional information i(x; word | the rest of the prompt) beside the parts of ``decomposing``: texts that
leave out one word are needed there anyway. Numbers are of all levels. Maps are of the noisy ones, weighed as
errors of v: there the network settles what is where, and nearer to the picture cells hold noise alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any, Unpack

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from ...models.base import Model
from ...models.progress import Progress
from ...probes.denoising_errors import ErrorBank, error_bank
from ...probes.denoising_errors.result import Estimator
from ...probes.denoising_errors.strata import StrataOptions
from ...probes.trace import Trace
from .decomposing import conditions_of, maps_of_parts, whole_parts
from .mutual import about, check_reads
from .redundancy import PARTS
from .words import Word

NOISY = -2.0
"""Log-SNR below which a level counts for maps."""
ESTIMATOR: Estimator = "standard"


def word_information(
    model: Model,
    images: Tensor | Trace,
    prompt: str,
    words: Sequence[Word],
    *,
    batch: int = 32,
    progress: Progress | None = None,
    **strata: Unpack[StrataOptions],
) -> xr.Dataset:
    """Return what each of some words tells given the rest of the prompt, and each pair taken apart.

    Costs (1 + n + pairs) conditions x levels x 2 x draws rows a picture.

    Returns:
        ``nats`` and ``stderr`` [image, word], ``map`` [image, word, y, x]; of two words or more also
        ``pair_nats`` and ``pair_stderr`` [image, pair, part] and ``pair_map`` [image, pair, part, y, x]. Maps
        are weighed, no nats.

    Raises:
        ValueError: for a model that reads no text, and as ``error_bank``.
    """
    check_reads(model)
    pairs = list(combinations(words, 2))
    texts, needed = conditions_of(prompt, words, pairs, given_rest=True)
    own = [("", f"- {w.name}") for w in words]
    bank = error_bank(
        model,
        images,
        texts,
        pairs=list(dict.fromkeys([*own, *(p for three in needed for p in three)])),
        batch=batch,
        progress=progress,
        **strata,
    )
    data = _of_words(bank, own) | (_of_pairs(bank, needed) if pairs else {})
    coords: dict[str, Any] = {"word": [w.name for w in words]}
    if pairs:
        coords |= {"pair": [f"{a.name} + {b.name}" for a, b in pairs], "part": list(PARTS)}
        coords |= {
            "first": ("pair", [a.name for a, _ in pairs]),
            "second": ("pair", [b.name for _, b in pairs]),
        }
    return xr.Dataset(data, coords, about(bank, ESTIMATOR))


def noisy(bank: ErrorBank, below: float = NOISY) -> ErrorBank:
    """Return the levels of a bank that lie below some log-SNR, at least the noisiest."""
    n = max(1, sum(level <= below for level in bank.log_snr))
    return replace(bank, log_snr=bank.log_snr[:n], gram=[g[:, :n] for g in bank.gram], maps=bank.maps[:, :n])


def _of_words(bank: ErrorBank, own: Sequence[tuple[str, str]]) -> dict[str, Any]:
    found = [bank.integral(bank.densities(*pair, ESTIMATOR)) for pair in own]
    nats, errors = (torch.stack(x, 1).numpy() for x in zip(*found, strict=True))
    few = noisy(bank)
    maps = torch.stack([few.map(*pair, ESTIMATOR, "v") for pair in own], 1).numpy()
    dims = ("image", "word")
    return {"nats": (dims, nats), "stderr": (dims, errors), "map": ((*dims, "y", "x"), maps)}


def _of_pairs(bank: ErrorBank, needed: Sequence[Any]) -> dict[str, Any]:
    found = [whole_parts(bank, ESTIMATOR, three, None) for three in needed]
    nats, errors = (np.stack(x, 1) for x in zip(*found, strict=True))
    maps = maps_of_parts(noisy(bank), ESTIMATOR, needed, [None] * len(needed), "v")
    dims = ("image", "pair", "part")
    return {
        "pair_nats": (dims, nats),
        "pair_stderr": (dims, errors),
        "pair_map": ((*dims, "y", "x"), maps),
    }
