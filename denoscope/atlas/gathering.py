"""Samples with what every feature does in them: sparse codes, kept sparse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..analysis.features.gathering import each_batch
from ..models.base import Model, Prompt
from ..models.images import to_array
from ..models.judges.labelled import Labelled
from ..models.progress import Progress
from ..models.run.context import When
from ..models.run.sampling import SamplingOptions
from ..probes.dictionary import Codes, Dictionary
from ..probes.trace import Trace


@dataclass(frozen=True, eq=False)
class Seen:
    """What was seen of samples.

    Args:
        codes: of each batch, rows [step, sample, *positions].
        pictures: [sample, row, column, channel], uint8.
        said: what a judge says of each sample, by attribute.
        steps: indices of the steps.
    """

    codes: tuple[Codes, ...]
    pictures: NDArray[np.uint8]
    said: dict[str, list[str]]
    steps: tuple[int, ...]

    def activity(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Mean strength [sample, feature] and [step, feature], and the share of positions that are on."""
        parts = [_sums(codes) for codes in self.codes]
        positions = _positions(self.codes[0])
        samples = torch.cat([p[0] for p in parts]) / (len(self.steps) * positions)
        steps = sum(p[1] for p in parts) / (len(samples) * positions)
        on = sum(p[2] for p in parts) / (len(samples) * positions * len(self.steps))
        return samples.numpy(), torch.as_tensor(steps).numpy(), torch.as_tensor(on).numpy()

    def maps(self, features: Sequence[int]) -> NDArray[np.float32]:
        """Mean strength over steps at each position, [sample, *positions, feature]."""
        return torch.cat([codes.of(features).mean(0) for codes in self.codes]).numpy()


def _positions(codes: Codes) -> int:
    return len(codes.starts) // (codes.shape[0] * codes.shape[1])


def _sums(codes: Codes) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of strengths [sample, feature], [step, feature], and how often each is on [feature]."""
    (n, m, *_), each = codes.shape, _positions(codes)
    step = codes.rows // (m * each)
    sample = codes.rows // each % m
    values, width = codes.values.double(), codes.width
    by_sample, by_step = values.new_zeros(m * width), values.new_zeros(n * width)
    by_sample.index_add_(0, sample * width + codes.features, values)
    by_step.index_add_(0, step * width + codes.features, values)
    on = values.new_zeros(width).index_add_(0, codes.features, (values > 0).double())
    return by_sample.view(m, width), by_step.view(n, width), on


def gathered(  # noqa: PLR0913  # one run
    model: Model,
    dictionary: Dictionary,
    prompts: Sequence[str | Prompt],
    seeds: Sequence[int],
    *,
    judge: Labelled | None,
    batch: int,
    progress: Progress,
    settings: SamplingOptions,
) -> Seen:
    """Run samples batch by batch, and encode what passes through the dictionary's site."""
    codes: list[Codes] = []
    pictures: list[NDArray[np.uint8]] = []
    said: dict[str, list[str]] = {name: [] for name in (judge.vocabulary if judge else ())}
    site, *others = reversed(dictionary.channels.sites)

    def keep(run: Trace) -> None:
        x = run[site].float()
        if others:  # an update, or a transcoder
            source = run[others[0]].float()
            x = x - source if dictionary.channels.kind == "update" else source
        codes.append(dictionary.encode(x, run.kept_steps))
        images = run.images.float()
        pictures.append(to_array(images).values)
        if judge is not None:
            for name, found in said.items():
                best = judge.probabilities(images, name).argmax(1).tolist()
                found += [judge.labels(name)[i] for i in best]

    sites: Any = dictionary.channels.sites
    run = each_batch(
        model, prompts, seeds, keep, sites=sites, when=When(branch="cond"), batch=batch, settings=settings,
        progress=progress,
    )  # fmt: skip
    steps = tuple(step.index for step in run.kept_steps)
    return Seen(tuple(codes), np.concatenate(pictures), said, steps)
