"""Measure a bias, find the features it hangs on, and take it out: one study on two halves of samples."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
import xarray as xr
from torch import Tensor

from ..analysis.features.bias_result import BiasFeatures, By
from ..analysis.features.finding import bias_features
from ..analysis.features.mitigating import Eyes, compare_mitigations
from ..analysis.features.painting import Acting, Way
from ..analysis.features.strength import calibrated_strength
from ..analysis.features.targets import stratified
from ..analysis.mediation.runs import check_each_once
from ..analysis.word_experiments.counting import Label, count_labels
from ..investigation.wording import template
from ..models.arguments import checked
from ..models.base import Model
from ..models.errors import UsageError
from ..models.images import to_array
from ..models.progress import Progress, showing
from ..models.run.settings import SamplingOptions
from ..models.text.prompt import occurrence
from ..probes.dictionary import Dictionary
from .result import BiasStudy

FEWEST = 8
MOST = 2.0
"""The largest strength that is tried: features of the wanted class three times as strong, others off."""
KINDS: dict[str, By] = {"features": "attribution", "as active": "matched", "contrast": "contrast"}
"""Ways by which features are chosen."""
SHOWN = 10
"""Features of each class in the table."""


@dataclass(frozen=True, eq=False)
class Asked:
    """What a study asks: of one prompt, or of none, and two classes."""

    model: Model
    dictionary: Dictionary
    classes: tuple[str, str]
    prompt: str
    about: str | None
    label: Label
    features: int
    settings: Any

    def prompts(self, seeds: Sequence[int]) -> list[str] | None:
        """The prompt of each sample; None for a model that reads none."""
        return [self.prompt] * len(seeds) if self.prompt else None

    def naming(self, name: str) -> str:
        """The prompt with a class before the word that it is about."""
        return naming(self.prompt, str(self.about), name)

    def found(self, seeds: Sequence[int]) -> BiasFeatures:
        """Which features tell the classes: of what pictures show, or of prompts that name them."""
        if self.about is not None:
            pairs = {name: [self.naming(name)] * len(seeds) for name in self.classes}
            return bias_features(self.model, self.dictionary, pairs, seeds=seeds, **self.settings)
        how = {"seeds": seeds, "label": self.label, **self.settings}
        try:
            return bias_features(self.model, self.dictionary, self.classes, self.prompts(seeds), **how)
        except UsageError as error:
            if self.prompt:
                error.add_note(
                    "Where a prompt paints one class alone, name the word that it is about: then prompts "
                    "with the class before that word are compared."
                )
            raise

    def push(self, found: BiasFeatures, name: str, strength: float, by: Any, n: int) -> Acting:
        """What acts on each of n samples to lead them towards a class."""
        edit = found.towards(self.dictionary, name, strength, features=self.features, by=by)
        return [(edit,)] * n


def one_of(classes: Sequence[str], label: Label) -> Label:
    """Return a label that says None of pictures of others, so that shares are those among the classes.

    >>> import torch
    >>> one_of(["woman", "man"], lambda _: ["man", "person"])(torch.zeros(2, 3, 8, 8))
    ['man', None]
    """

    def said(images: Tensor) -> list[str | None]:
        return [name if name in classes else None for name in label(images)]

    return said


def naming(prompt: str, about: str, name: str) -> str:
    """Return a prompt with a class before the word that it is about.

    >>> naming("a photo of a cook", "cook", "woman")
    'a photo of a woman cook'
    """
    return template(prompt, about).replace("{}", f"{name} {occurrence(about)[0]}")


@checked
def study_bias(  # noqa: PLR0913  # one experiment, all its settings by name
    model: Model,
    dictionary: Dictionary,
    classes: Sequence[str],
    prompt: str = "",
    *,
    about: str | None = None,
    seeds: Sequence[int],
    label: Label,
    judge: Eyes,
    features: int = 30,
    batch: int = 16,
    progress: Progress | None = None,
    **settings: Unpack[SamplingOptions],
) -> BiasStudy:
    """Measure how unequal two classes are, find the features that tell them, and push to equal shares.

    With the first half of the seeds features are found and the strength is calibrated; all that the result
    says of shares and pictures is of the second half. The push is towards the class that is rarer in the
    first half, by scaling its features up and those of the other down in all steps. Beside it stand as many
    features that are as active (a control), those of plain class contrast, the difference of the classes'
    mean activations, which needs no features, and with ``about`` the class written into the prompt. A way for
    which the class has no features is left out, and the result says why.

    Args:
        model: an opened model.
        dictionary: of one of its sites.
        classes: two labels.
        prompt: what is painted; empty for a model that reads no text.
        about: a word of the prompt; then features are found with prompts that name a class before it, which
            also works where the prompt itself paints one class alone.
        seeds: of all samples, at least eight.
        label: says of pictures [sample, 3, height, width] what class each shows; others than the two count
            as neither.
        judge: whose eyes say how like the plain picture each is.
        features: of each class, at most, that are edited.
        batch: samples in one batch.
        progress: called with (done, total, what); without it a bar comes by itself.
        **settings: how it is sampled, as in ``Sampling``.

    Raises:
        ValueError: for other than two classes, too few seeds, a word without a prompt, a class of which the
            first half shows fewer than two, and a dictionary of another model.
        LookupError: for a word that the prompt does not have.
    """
    names = tuple(classes)
    check_each_once("seeds", list(map(str, seeds)))
    if len(set(names)) != 2 or len(names) != 2 or len(seeds) < FEWEST or features < 1:
        raise UsageError(
            f"classes are {list(names)}, seeds {len(seeds)}, features {features}; give two classes, "
            f"{FEWEST} seeds or more, 1 feature or more"
        )
    if about is not None and not prompt:
        raise UsageError(f"about is {about!r}, a word of the prompt, and there is no prompt")
    how: Any = {**settings, "batch": batch}
    first, second = list(seeds[: len(seeds) // 2]), list(seeds[len(seeds) // 2 :])
    with showing(progress) as show:
        how["progress"] = show
        asked = Asked(model, dictionary, (names[0], names[1]), prompt, about, label, features, how)
        if about is not None:
            asked.naming(names[0])
        found = asked.found(first)
        rare = _rarer(asked, found, first)
        missing = _missing(asked, found, rare)
        strength, reached = (0.0, False) if "features" in missing else _strength(asked, found, rare, first)
        data = _tried(asked, found, rare, strength, without=missing, seeds=second, judge=judge)
    told: dict[str, Any] = {"classes": list(names), "prompt": prompt, "about": about or "", "towards": rare}
    told |= {"strength": strength, "reached": int(reached), "found_on": len(first), "missing": missing}
    return BiasStudy(data.assign_attrs(**told, site=str(dictionary.site), dictionary=repr(dictionary)))


def _rarer(asked: Asked, found: BiasFeatures, seeds: Sequence[int]) -> str:
    """The class that fewer pictures show."""
    if asked.about is None:
        said = found.data["label"].values.tolist()
        return min(asked.classes, key=said.count)
    prompts = {"": asked.prompt}
    counts = count_labels(asked.model, prompts, asked.label, asked.classes, seeds=seeds, **asked.settings)
    return min(asked.classes, key=lambda name: float(counts.shown.sel(attribute=name).sum()))


def _missing(asked: Asked, found: BiasFeatures, rare: str) -> dict[str, str]:
    """Way -> why the class has no features for it."""
    without: dict[str, str] = {}
    for way, by in KINDS.items():
        try:
            asked.push(found, rare, MOST, by, 1)
        except UsageError as error:
            if found.top(rare, asked.features, by):
                raise
            without[way] = str(error)
    if "features" in without:  # with which strength is calibrated
        without.setdefault("contrast", "no strength was found for it, for the features above are missing")
    return without


def _strength(asked: Asked, found: BiasFeatures, rare: str, seeds: Sequence[int]) -> tuple[float, bool]:
    """The strength that makes shares equal, and whether one does; the largest one if none does."""

    def push(strength: float) -> Acting:
        return asked.push(found, rare, strength, "attribution", len(seeds))

    how = {"seeds": seeds, "most": MOST, "rounds": 4, **asked.settings}
    try:
        label = one_of(asked.classes, asked.label)
        got = calibrated_strength(asked.model, push, label, (rare, 0.5), asked.prompts(seeds), **how)
    except UsageError:  # equal shares do not lie between those at 0 and at the largest strength
        return MOST, False
    return got.strength, True


def _tried(  # noqa: PLR0913  # what a study found out, each by its name
    asked: Asked,
    found: BiasFeatures,
    rare: str,
    strength: float,
    *,
    without: Collection[str],
    seeds: Sequence[int],
    judge: Eyes,
) -> xr.Dataset:
    """All ways but some on new seeds, with their pictures."""
    n, pictures = len(seeds), []

    def label(images: Tensor) -> Sequence[str | None]:
        pictures.append(to_array(images).values)  # each way is labelled once, in order
        return asked.label(images)

    kinds = {way: by for way, by in KINDS.items() if way not in without}
    ways: dict[str, Way] = {way: asked.push(found, rare, strength, by, n) for way, by in kinds.items()}
    ways["means"] = [(found.mean_difference(rare),)] * n
    target = dict.fromkeys(asked.classes, 0.5)
    if asked.about is not None:
        ways["words"] = [asked.naming(name) for name in stratified(target, n)]
    made = compare_mitigations(
        asked.model, ways, asked.prompts(seeds), seeds=seeds, label=label, target=target, judge=judge,
        **asked.settings,
    )  # fmt: skip
    over = ("way", "sample", "row", "column", "channel")
    return made.data.assign(pictures=(over, np.stack(pictures)), **_told(found)).assign_coords(
        seed=("sample", seeds)
    )


def _told(found: BiasFeatures) -> dict[str, Any]:
    """What classifiers tell at each step, and the best features of each class."""
    accuracy, frame = found.accuracy(), found.to_frame().set_index(["class", "feature"])
    best = frame.loc[[(c, f) for c in found.classes for f in found.top(c, SHOWN)]].reset_index()
    columns = {name: ("line", best[name].to_numpy()) for name in ("feature", "score", "auc")}
    columns["class_of"] = ("line", best["class"].to_numpy().astype(str))
    steps = {
        f"told_{name}": ("step", accuracy[name].to_numpy()) for name in ("mean", "low", "high", "shuffled")
    }
    return {**columns, **steps, "step": ("step", accuracy["step"].to_numpy())}


__all__ = ["study_bias"]
