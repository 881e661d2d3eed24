"""What may foretell how far a picture moves without a word, each from the first picture alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from ...models.base import Model
from ...probes.denoising_errors import ErrorBank, error_bank
from ...probes.trace import Trace
from ..attribution.attention_maps import word_maps
from ..attribution.gradients.attributing import attribute
from ..information.words import Word, without

Array: TypeAlias = NDArray[np.float64]
LOG_SNR = -2.0
"""Where gradients are taken: by then subjects are told apart, and little else is."""
POINTS = 8
"""Of the path of integrated gradients; ranks of words need few."""


@dataclass(frozen=True, eq=False)
class Looked:
    """One prompt, its pictures, and what was found on them; made when first asked for.

    Args:
        model: an opened model.
        prompt: the whole text.
        words: those that are tried, in the order of the prompt.
        run: the pictures.
        sampling: how they were painted.
        bank: settings of ``error_bank``.
    """

    model: Model
    prompt: str
    words: Sequence[Word]
    run: Trace
    sampling: Mapping[str, Any]
    bank: Mapping[str, Any]

    @property
    def names(self) -> list[str]:
        """Of the words, as they are asked for."""
        return [w.name for w in self.words]

    @cached_property
    def errors(self) -> ErrorBank:
        """Errors with the prompt, each word alone, and the rest of it."""
        conditions = {"": "", "prompt": self.prompt}
        for w in self.words:
            conditions |= {f"only {w.name}": w.text, f"rest {w.name}": without(self.prompt, [w])}
        pairs = [(name, "") for name in conditions if name.startswith(("only ", "rest "))]
        return error_bank(self.model, self.run, conditions, pairs=pairs, seed=self.run.seeds[0], **self.bank)


def _unique(looked: Looked) -> Array:
    rows = []
    for name in looked.names:
        own, rest = (looked.errors.map(f"{part} {name}", "") for part in ("only", "rest"))
        rows.append((own - torch.minimum(own, rest)).sum((1, 2)))
    return torch.stack(rows).numpy()


def _conditional(looked: Looked) -> Array:
    bank = looked.errors
    rows = [bank.integral(bank.densities("prompt", f"rest {name}"))[0] for name in looked.names]
    return torch.stack(rows).numpy()


def _attention(looked: Looked) -> Array:
    seeds = looked.run.seeds
    found = word_maps(
        looked.model, [looked.prompt] * len(seeds), looked.names, seeds=seeds, **looked.sampling
    )
    return found.maps.mean(("y", "x")).transpose("word", "sample").sel(word=looked.names).values


def _gradient(looked: Looked) -> Array:
    at, columns = looked.model.step_at(log_snr=LOG_SNR), []
    for i, seed in enumerate(looked.run.seeds):
        found = attribute(
            looked.model,
            [looked.prompt],
            of="shift",
            to="words",
            seeds=[seed],
            images=looked.run.images[i : i + 1],
            at=at,
            words=looked.names,
            points=POINTS,
        )
        columns.append(np.abs(found.values.sel(word=looked.names).squeeze(("prompt", "seed")).values))
    return np.stack(columns, 1)


def _position(looked: Looked) -> Array:
    """More for earlier words: whatever is left out shifts all that stands behind it."""
    places = np.arange(len(looked.words), 0, -1, dtype=np.float64)
    return np.repeat(places[:, None], len(looked.run.seeds), 1)


KINDS: Mapping[str, Callable[[Looked], Array]] = {
    "unique information": _unique,
    "conditional information": _conditional,
    "attention": _attention,
    "gradient": _gradient,
    "position": _position,
}
PREDICTORS = tuple(KINDS)


def predicted(looked: Looked, predictors: Sequence[str]) -> Array:
    """Return what predictors say [predictor, word, seed]."""
    return np.stack([KINDS[name](looked) for name in predictors])
