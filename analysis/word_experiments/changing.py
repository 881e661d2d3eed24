"""Which words a picture hangs on: how far it moves without each, and what foretold that.

The prompt intervention of Kong et al. (ICLR 2024, arXiv:2310.07972, section 4.3): a word is left out, or
another put in its place, and the picture of the same seed is painted again. What is measured on the first
picture, information, attention, gradients, is compared with how far the second one is from it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from ...models.arguments import checked
from ...models.base import Model
from ...models.errors import NotFoundError, UsageError
from ...models.progress import Progress, showing
from ...models.store.provenance import provenance
from ...models.suggest import near
from ...probes.trace import Trace, trace
from ..information.mutual import check_reads
from ..information.words import Word, chosen_words, without
from ..mediation.runs import check_each_once
from .changes_result import WordChanges
from .predictors import KINDS, PREDICTORS, Looked, predicted

Array: TypeAlias = NDArray[np.float64]
Distance: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""How far pictures [sample, 3, height, width] in 0..1 are from their fellows, [sample]."""


@checked
def word_changes(  # noqa: PLR0913  # one experiment, all its settings by name
    model: Model,
    prompts: Sequence[str],
    *,
    seeds: Sequence[int],
    words: Mapping[str, Sequence[str]] | None = None,
    swaps: Mapping[str, str] | None = None,
    distances: Mapping[str, Distance] | None = None,
    predictors: Sequence[str] = PREDICTORS,
    steps: int = 20,
    guidance: float | None = None,
    levels: int = 16,
    draws: int = 1,
    batch: int = 32,
    store: str | Path | None = None,
    progress: Progress | None = None,
) -> WordChanges:
    """Say how far each picture moves when a word is left out or swapped, beside what may foretell it.

    Predictors, each of a word, a prompt and a seed, from the picture of the whole prompt alone:

    - ``"unique information"``: what the word by itself tells beyond the rest of the prompt, cell by cell (the
      minimum is redundant), added up, in nats; 2 conditions a word;
    - ``"conditional information"``: what it tells, the rest known, in nats; the same conditions;
    - ``"attention"``: the mean of its attention map;
    - ``"gradient"``: the size of its integrated gradient of how far the prompt moves the prediction;
    - ``"position"``: how early it stands in the prompt, which knows nothing of the picture: without a word,
      all behind it are read in other places.

    Args:
        model: an opened model that reads prompts.
        prompts: texts.
        seeds: each prompt is painted with each; without a word from the same noise.
        words: by prompt, those that are tried, two at least: ``{"a red cat": ["red", "cat"]}``. None is
            every word of each.
        swaps: word to what is put in its place, wherever it is tried; other words are left out.
        distances: by name, functions of changed and first pictures, beside ``"latents"``, the root mean
            square difference of the final latents: ``{"judge": lambda a, b: 1 - similarity}``.
        predictors: which of them.
        steps: sampling steps.
        guidance: of the pictures; None is the model's default. They are measured without.
        levels: noise levels of informations, as in ``Strata``.
        draws: at each level.
        batch: samples, or rows, in one call of the network.
        store: a folder that keeps predictions of informations.
        progress: called with (done, total, what); without it a bar comes by itself.

    Raises:
        LookupError: for words that are not in their prompt, prompts and swaps that are not
            tried, and unknown predictors.
        ValueError: for no prompts or seeds, one twice, fewer than two words, and distances that are not one
            finite number for each picture.
    """
    check_reads(model)
    tried = check_changes(prompts, seeds, words, swaps or {}, distances or {}, predictors)
    sampling: dict[str, Any] = {"steps": steps, "guidance": guidance}
    bank = {"levels": levels, "draws": draws, "batch": batch, "store": store}
    parts = []
    with showing(progress) as show:
        for i, (prompt, own) in enumerate(tried.items()):
            run = trace(model, [prompt] * len(seeds), seeds=seeds, progress=show, **sampling)
            texts = [changed(prompt, word, swaps or {}) for word in own]
            others = [trace(model, [t] * len(seeds), seeds=seeds, progress=show, **sampling) for t in texts]
            looked = Looked(model, prompt, own, run, sampling, bank)
            parts.append(
                xr.Dataset(
                    {
                        "change": (("distance", "unit", "seed"), moved(run, others, distances or {})),
                        "predictors": (("predictor", "unit", "seed"), predicted(looked, predictors)),
                        "prompt": ("unit", [prompt] * len(own)),
                        "word": ("unit", [w.name for w in own]),
                        "changed": ("unit", texts),
                    }
                )
            )
            show(i + 1, len(tried), "prompts")
    data = xr.concat(parts, "unit").assign_coords(
        distance=["latents", *(distances or {})], predictor=list(predictors), seed=list(seeds)
    )
    return WordChanges(
        data.assign_attrs(provenance(model, **sampling, levels=levels, draws=draws, swaps=dict(swaps or {})))
    )


def changed(prompt: str, word: Word, swaps: Mapping[str, str]) -> str:
    """Return a prompt with a word left out, or swapped.

    >>> red = Word("red", "red", 2, 5)
    >>> changed("a red cat", red, {}), changed("a red cat", red, {"red": "blue"})
    ('a cat', 'a blue cat')
    """
    if word.text not in swaps:
        return without(prompt, [word])
    return prompt[: word.first] + swaps[word.text] + prompt[word.last :]


def moved(run: Trace, others: Sequence[Trace], distances: Mapping[str, Distance]) -> Array:
    """Return how far the pictures of other runs are from those of the first [distance, unit, seed].

    Raises:
        ValueError: for a distance that is not one finite number for each picture.
    """
    rows = [[(o.latents - run.latents).flatten(1).square().mean(1).sqrt().tolist() for o in others]]
    for name, distance in distances.items():
        with torch.no_grad():
            found = [distance(o.images, run.images) for o in others]
        for values in found:
            if not (isinstance(values, Tensor) and values.shape == (len(run.latents),)):
                raise UsageError(
                    f"the distance {name!r} returned {_shape(values)} for {len(run.latents)} pictures; "
                    f"return a tensor [{len(run.latents)}], one number for each"
                )
            if not values.isfinite().all():
                raise UsageError(f"the distance {name!r} returned NaN or infinite values: {values.tolist()}")
        rows.append([v.tolist() for v in found])
    return np.array(rows)


def _shape(values: object) -> str:
    return f"shape {list(values.shape)}" if isinstance(values, Tensor) else type(values).__name__


def check_changes(  # noqa: PLR0917  # as word_changes has them
    prompts: Sequence[str],
    seeds: Sequence[int],
    words: Mapping[str, Sequence[str]] | None,
    swaps: Mapping[str, str],
    distances: Mapping[str, Distance],
    predictors: Sequence[str],
) -> dict[str, list[Word]]:
    """Return the words that are tried, by prompt, before anything is painted.

    Raises:
        LookupError, ValueError: as ``word_changes``.
    """
    for name, given in (("prompts", prompts), ("seeds", seeds), ("predictors", predictors)):
        check_each_once(name, given)
    for prompt in words or {}:
        if prompt not in prompts:
            raise NotFoundError(
                f"words are given for {prompt!r}, which is no prompt; {near(prompt, prompts)}"
            )
    for name in predictors:
        if name not in KINDS:
            raise NotFoundError(f"there is no predictor {name!r}; {near(name, KINDS)}")
    if "latents" in distances:
        raise UsageError("the distance 'latents' is always there; give yours another name")
    tried = {p: chosen_words(p, None if words is None else words.get(p)) for p in prompts}
    texts = {w.text for own in tried.values() for w in own}
    for word in swaps:
        if word not in texts:
            raise NotFoundError(f"swaps name {word!r}, which is not tried; {near(word, texts)}")
    return tried
