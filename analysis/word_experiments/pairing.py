"""Kinds of pairs of words, homonyms, synonyms, co-hyponyms, by what the words of a pair tell together.

DiffusionPID (Dewan, Zawar et al., NeurIPS 2024) takes single pairs apart and looks at maps. Here a kind is
as many pairs as are given, and kinds are compared with intervals over their pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from ...models.arguments import checked
from ...models.base import Model
from ...models.errors import UsageError
from ...models.progress import Progress, showing
from ...models.store.provenance import provenance
from ...probes.denoising_errors.result import Estimator
from ...probes.trace import trace
from ..information.decomposing import pid
from ..information.mutual import check_reads
from ..information.words import chosen_words
from ..mediation.runs import check_each_once
from .pairs_result import PairKinds


@checked
def pair_kinds(  # noqa: PLR0913  # one experiment, all its settings by name
    model: Model,
    kinds: Mapping[str, Sequence[tuple[str, str, str]]],
    *,
    seeds: Sequence[int],
    given_rest: bool = True,
    estimator: Estimator = "standard",
    steps: int = 20,
    guidance: float | None = None,
    levels: int = 16,
    draws: int = 1,
    batch: int = 32,
    store: str | Path | None = None,
    progress: Progress | None = None,
) -> PairKinds:
    """Take pairs of words apart, each on pictures of its own prompt, kind by kind.

    Costs 4 conditions x levels x 2 x draws rows a picture.

    Args:
        model: an opened model that reads prompts.
        kinds: by name, (prompt, first word, second word): ``{"homonyms": [("a hot dog", "hot", "dog")],
            "co-hyponyms": [("a rose and a tulip", "rose", "tulip")]}``. Words are named as in ``pid``; part
            1 is of the word that stands first.
        seeds: each prompt is painted with each.
        given_rest: as in ``pid``: words left out of the prompt in their places, or each as its own text.
        estimator: as in ``pid``.
        steps: sampling steps.
        guidance: of the pictures; None is the model's default. They are measured without.
        levels: noise levels, as in ``Strata``.
        draws: at each level.
        batch: samples, or rows, in one call of the network.
        store: a folder that keeps predictions: a call that was stopped goes on.
        progress: called with (done, total, what); without it a bar comes by itself.

    Raises:
        ValueError: for no kinds, a pair twice, and what ``pid`` refuses.
        LookupError: for words that are not in their prompt.
    """
    check_reads(model)
    pairs = [(kind, *pair) for kind, some in kinds.items() for pair in some]
    check_pairs(kinds, pairs)
    check_each_once("seeds", seeds)
    sampling: dict[str, Any] = {"steps": steps, "guidance": guidance}
    found = []
    with showing(progress) as show:
        for i, (_, prompt, *words) in enumerate(pairs):
            run = trace(model, [prompt] * len(seeds), seeds=seeds, progress=show, **sampling)
            one = pid(model, run, prompt, words, given_rest=given_rest, estimator=estimator, levels=levels,
                      draws=draws, seed=seeds[0], batch=batch, store=store, progress=show)  # fmt: skip
            found.append(xr.Dataset({"nats": one.nats, "cells": one.map.sum(("y", "x"))}).drop_vars("image"))
            show(i + 1, len(pairs), "pairs of words")
    data = xr.concat(found, "pair").rename(image="seed").transpose("pair", "part", "seed")
    data = data.drop_vars(["log_snr", "draws", "reached"], errors="ignore").assign_coords(
        seed=list(seeds), kind=("pair", [p[0] for p in pairs]), prompt=("pair", [p[1] for p in pairs])
    )
    about = provenance(model, given_rest=int(given_rest), estimator=estimator, **sampling, levels=levels,
                       draws=draws)  # fmt: skip
    return PairKinds(data.assign_attrs(about))


def check_pairs(kinds: Mapping[str, Sequence[tuple[str, str, str]]], pairs: Sequence[Sequence[str]]) -> None:
    """Raise for kinds that make no experiment, before anything is painted.

    Raises:
        ValueError: for no kinds, a kind without pairs, what is no pair, and a pair twice.
        LookupError: for words that are not in their prompt.
    """
    if not kinds or not all(kinds.values()):
        raise UsageError(
            f"kinds is {dict(kinds)!r}; give at least one pair of each: "
            '{"homonyms": [("a hot dog", "hot", "dog")]}'
        )
    for kind, *pair in pairs:
        if len(pair) != 3:
            raise UsageError(f"{kind!r} holds {tuple(pair)!r}; a pair is (prompt, first word, second word)")
        chosen_words(pair[0], pair[1:])
    check_each_once("pairs", [(prompt, *sorted(words)) for _, prompt, *words in pairs])
