"""Runs whose classes are known, and what they left at a dictionary's site."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...models.arguments import batches
from ...models.base import Model, Prompt, check_run
from ...models.errors import UsageError
from ...models.progress import Progress
from ...models.run.context import When
from ...models.run.levels import Step
from ...models.run.sampling import SamplingOptions
from ...probes.dictionary import Dictionary
from ...probes.trace import Trace, trace
from ..mediation.runs import check_each_once
from ..word_experiments.counting import Label, labelled

Labels: TypeAlias = NDArray[np.int64]
FEWEST = 2


@dataclass(frozen=True, eq=False)
class Question:
    """Which samples are looked at, and where their classes come from.

    Args:
        classes: their names.
        prompts: one a sample.
        seeds: one a sample.
        label: says the class of pictures; None where that is the prompt's.
    """

    classes: tuple[str, ...]
    prompts: Sequence[str | Prompt]
    seeds: Sequence[int]
    label: Label | None

    @classmethod
    def of(
        cls,
        classes: Sequence[str] | Mapping[str, Sequence[str | Prompt]],
        prompts: Sequence[str | Prompt] | None,
        seeds: Sequence[int],
        label: Label | None,
    ) -> Question:
        """Return the question that was asked.

        Raises:
            UsageError: for fewer than two classes, and for a class of prompts with labels, or neither.
        """
        names = list(classes)
        check_each_once("classes", names)
        if len(names) < 2:
            raise UsageError(f"classes are {names}; give two or more, or there is nothing to tell apart")
        if not isinstance(classes, Mapping):
            if label is None:
                raise UsageError(
                    "label is None, so who is of which class is not known; give label=..., which says it of "
                    "pictures, or classes as {'woman': ['a woman cook', ...], 'man': ['a man cook', ...]}"
                )
            given = [""] * len(seeds) if prompts is None else prompts
            check_run(len(given), seeds)
            return cls(tuple(names), given, seeds, label)
        if label is not None or prompts is not None:
            raise UsageError("classes are given by their prompts; leave out label and prompts")
        for name, texts in classes.items():
            if len(texts) != len(seeds) or not len(texts):
                raise UsageError(
                    f"class {name!r} has {len(texts)} prompts for {len(seeds)} seeds; give one prompt for "
                    "each seed, and as many for each class: prompt i of all classes runs with seed i"
                )
        return cls(tuple(names), [t for some in classes.values() for t in some], [*seeds] * len(names), None)

    @property
    def paired(self) -> bool:
        """Whether sample i of each class is the same but for the class."""
        return self.label is None


@dataclass(frozen=True, eq=False)
class Seen:
    """What was seen of samples of known classes.

    Args:
        acts: the site's activations, [step, sample, ...].
        read: what the dictionary encodes, [step, sample, ...].
        steps: of the run.
        labels: the class of each sample.
        groups: samples of one pair have one number.
        kept: which samples were of any class.
    """

    acts: Tensor
    read: Tensor
    steps: tuple[Step, ...]
    labels: Labels
    groups: Labels
    kept: tuple[int, ...]


def gathered(
    model: Model,
    dictionary: Dictionary,
    asked: Question,
    *,
    when: When,
    batch: int,
    settings: SamplingOptions,
    progress: Progress | None,
) -> Seen:
    """Run all samples, and keep those that are of a class.

    Raises:
        UsageError: for a class of which there are fewer than two samples.
    """
    sites = dictionary.channels.sites
    acts: dict[Any, list[Tensor]] = {site: [] for site in sites}
    said: list[str | None] = []

    def keep(run: Trace) -> None:
        dictionary.encode(run[sites[0]][:1, :1], run.kept_steps[:1])  # another width is told at once
        for site in sites:
            acts[site].append(run[site].float())
        if asked.label is not None:
            said.extend(labelled(asked.label, run.images))

    run = each_batch(
        model, asked.prompts, asked.seeds, keep, sites=sites, when=when, batch=batch, settings=settings,
        progress=progress,
    )  # fmt: skip
    n = len(asked.prompts) // len(asked.classes)
    names = said if asked.label is not None else [c for c in asked.classes for _ in range(n)]
    kept = [i for i, name in enumerate(names) if name in asked.classes]
    labels = np.array([asked.classes.index(str(names[i])) for i in kept], dtype=np.int64)
    _check(asked, labels, len(names))
    own = {site: torch.cat(parts, 1)[:, kept] for site, parts in acts.items()}
    y = own[dictionary.site]
    x = y if dictionary.channels.source is None else own[dictionary.channels.source]
    read = y - x if dictionary.channels.kind == "update" else x
    groups = np.array([i % n if asked.paired else i for i in kept])
    return Seen(y, read, run.kept_steps, labels, groups, tuple(kept))


def each_batch(
    model: Model,
    prompts: Sequence[str | Prompt],
    seeds: Sequence[int],
    keep: Callable[[Trace], None],
    *,
    sites: Sequence[Any],
    when: When,
    batch: int,
    settings: SamplingOptions,
    progress: Progress | None,
) -> Trace:
    """Trace samples batch by batch, hand over each trace, and return the last."""
    negative = settings.get("negative", "")
    for some in batches(len(seeds), batch):
        own: Any = settings if isinstance(negative, str) else {**settings, "negative": negative[some]}
        run = trace(
            model, prompts[some], seeds=seeds[some], sites=sites, when=replace(when, rows=None), **own
        )
        keep(run)
        if progress:
            progress(some.stop, len(seeds), "samples")
    return run


def _check(asked: Question, labels: Labels, n: int) -> None:
    counts = {name: int((labels == i).sum()) for i, name in enumerate(asked.classes)}
    few = [name for name, count in counts.items() if count < FEWEST]
    if few:
        raise UsageError(
            f"of {n} samples {counts} are of each class, so {', '.join(map(repr, few))} cannot be told from "
            f"the others; give more seeds, or other classes (at least {FEWEST} samples of each are needed)"
        )
