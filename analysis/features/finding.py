"""Which features of a dictionary a class hangs on: DiffLens (Shi et al., CVPR 2025), whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from ...models.arguments import checked
from ...models.base import Model, Prompt
from ...models.errors import UsageError
from ...models.progress import Progress, showing
from ...models.run.context import When
from ...models.run.levels import Step
from ...models.run.sampling import Sampling, SamplingOptions
from ...models.store.provenance import provenance
from ...probes.dictionary import Dictionary
from ..word_experiments.counting import Label
from .attributing import attributed, slopes
from .bias_result import BiasFeatures
from .gathering import Question, Seen, gathered
from .telling import classifier

CHUNK = 32
"""Samples whose codes are whole in memory at once."""


@checked
def bias_features(  # noqa: PLR0913  # one experiment, all its settings by name
    model: Model,
    dictionary: Dictionary,
    classes: Sequence[str] | Mapping[str, Sequence[str | Prompt]],
    prompts: Sequence[str | Prompt] | None = None,
    *,
    seeds: Sequence[int],
    label: Label | None = None,
    when: When = When(),
    batch: int = 16,
    progress: Progress | None = None,
    **settings: Unpack[SamplingOptions],
) -> BiasFeatures:
    """Say which features of a dictionary tell classes apart, step by step.

    At each step a linear classifier is fitted to the activations at the dictionary's site; how well it does
    on samples that it has not seen stands beside the same for shuffled labels. The features' integrated
    gradients of the probability of a sample's own class say what each adds to it, summed over positions. The
    baseline is no feature, or in a pair the features of the other prompt of the same seed (the mean over the
    others, where there are several): then what both have counts nothing.

    Two choices differ from the published code: what the dictionary does not explain stays along the path, as
    it does when features are edited, and every step has its classifier, evaluated on samples held out.

    Args:
        model: an opened model.
        dictionary: of one of its sites.
        classes: names, two or more, with ``label``; or for each its prompts, where prompts of one place form
            a pair and run with one seed: ``{"woman": ["a woman cook"], "man": ["a man cook"]}``.
        prompts: with ``label``, one for each seed; leave out for an unconditional model.
        seeds: one for each sample, or each pair.
        label: says of pictures [sample, 3, height, width] what class each shows; samples that are of none
            (None, or another name) are left out.
        when: which steps, and which branch.
        batch: samples in one batch.
        progress: called with (done, total, what); without it a bar comes by itself.
        **settings: how it is sampled, as in ``Sampling``: steps, guidance, negative, size.

    Raises:
        ValueError: for classes of which there are fewer than two samples, labels of one class, a dictionary
            of another model, site or width, and steps outside the run.
        LookupError: if the model does not have the dictionary's site.
    """
    dictionary.check(model)
    how = Sampling(**settings)
    model = model.sized(how.size)
    _check(dictionary, when)
    asked = Question.of(classes, prompts, seeds, label)
    when.check(len(model.steps(how)), len(asked.prompts), model.branch_names(how.guidance))
    with torch.no_grad(), showing(progress) as show:
        seen = gathered(model, dictionary, asked, when=when, batch=batch, settings=settings, progress=show)
        data = _analysed(dictionary, asked, seen)
    about = provenance(
        model,
        **how.described(model),
        method="bias_features",
        site=str(dictionary.site),
        dictionary=dictionary.digest,
        baseline="pair" if asked.paired else "zero",
        branch=str(when.branch),
    )
    return BiasFeatures(data.assign_attrs(about))


def _check(dictionary: Dictionary, when: When) -> None:
    if not dictionary.channels.has_steps:
        raise UsageError(f"{dictionary.site} is in a text encoder, which has no steps and paints no classes")
    if when.branch is None or when.rows is not None:
        raise UsageError(f"one guidance branch of all samples is looked at; {when} names another choice")


def _analysed(dictionary: Dictionary, asked: Question, seen: Seen) -> xr.Dataset:
    k = len(asked.classes)
    with torch.autocast("cpu", enabled=False):  # codes, slopes and scores in float32, whatever is around
        lines = [_at_step(dictionary, asked, seen, i) for i in range(len(seen.steps))]
    names = ("score", "right", "shuffled", "gap")
    found = {name: np.stack([getattr(line, name) for line in lines]) for name in names}
    activity = np.mean([line.activity for line in lines], 0)
    on = np.sum([line.on for line in lines], 0)
    own = np.eye(k)[seen.labels]
    means, others = (w.T @ activity / w.sum(0)[:, None] for w in (own, 1 - own))
    dims = {
        "score": ("step", "class", "feature"),
        "right": ("step", "sample"),
        "shuffled": ("step", "sample"),
        "gap": ("step", "class", *dictionary.channels.axes),
    }
    variables: dict[str, Any] = {name: (dims[name], values) for name, values in found.items()}
    total = activity.sum(0) * lines[0].positions * len(lines)
    variables |= {
        "activity": (("sample", "feature"), activity),
        "contrast": (("class", "feature"), means - others),
        "level": (("feature",), np.divide(total, on, out=np.zeros_like(on), where=on > 0)),
        "label": (("sample",), [asked.classes[i] for i in seen.labels]),
        "sigma": (("step",), [s.sigma for s in seen.steps]),
    }
    coords: dict[str, Any] = {
        "step": [s.index for s in seen.steps],
        "class": list(asked.classes),
        "sample": list(seen.kept),
        "feature": np.arange(dictionary.width),
    }
    return xr.Dataset(variables, coords)


@dataclass(frozen=True, eq=False)
class _Line:
    """What one step has to say."""

    score: Any
    right: Any
    shuffled: Any
    gap: Any
    activity: Any
    on: Any
    positions: int


def _at_step(dictionary: Dictionary, asked: Question, seen: Seen, i: int) -> _Line:
    step, k, paired = seen.steps[i], len(asked.classes), asked.paired
    acts, labels = seen.acts[i], torch.from_numpy(seen.labels)
    fitted = classifier(acts, seen.labels, seen.groups, k)
    weights = torch.from_numpy(fitted.weights).float().view(k, *acts.shape[1:])
    slope = slopes(_flat(dictionary, weights), dictionary.decoder)
    logits = acts.flatten(1) @ weights.flatten(1).mT + torch.from_numpy(fitted.bias).float()
    score = torch.zeros(k, dictionary.width)
    activity = torch.zeros(len(labels), dictionary.width)
    on = torch.zeros(dictionary.width)
    for some in torch.arange(len(labels)).split(CHUNK):
        codes = _codes(dictionary, seen.read[i, some], step)
        activity[some], on = codes.mean(1), on + (codes > 0).sum((0, 1))
        for turn in range(1, k) if paired else [0]:
            change = codes
            if turn:
                other = (some + turn * (len(labels) // k)) % len(labels)
                change = codes - _codes(dictionary, seen.read[i, other], step)
            owed = attributed(change, slope, logits[some], labels[some]).sum(1)
            score.index_add_(0, labels[some], owed / (max(1, k - 1) if paired else 1))
    sizes = torch.bincount(labels, minlength=k)[:, None]
    gap = [acts[labels == c].mean(0) - acts[labels != c].mean(0) for c in range(k)]
    return _Line((score / sizes).numpy(), fitted.right, fitted.shuffled, torch.stack(gap).numpy(),
                 activity.double().numpy(), on.double().numpy(), codes.shape[1])  # fmt: skip


def _codes(dictionary: Dictionary, x: Tensor, step: Step) -> Tensor:
    """Codes [sample, position, feature]."""
    codes = dictionary.encode(x, step).dense()
    return codes.reshape(len(x), -1, dictionary.width)


def _flat(dictionary: Dictionary, x: Tensor) -> Tensor:
    """An activation [class, ...] as [class, position, channel]."""
    rows = dictionary.channels.rows(x)
    return rows.reshape(len(x), -1, rows.shape[-1])
