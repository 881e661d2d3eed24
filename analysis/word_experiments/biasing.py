"""Whether a model takes a subject to be of one kind: what words tell of its pictures.

DiffusionPID (Dewan, Zawar et al., NeurIPS 2024, section on bias) reads the redundancy of an occupation and
a gender word as bias. Here it stands beside the information of the attribute's word given the subject, on two
kinds of pictures, so that each can be compared with what is counted; see ``WordBias.correlations``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
import xarray as xr

from ...models.arguments import checked
from ...models.base import Model
from ...models.errors import UsageError
from ...models.progress import Progress, showing
from ...models.store.provenance import provenance
from ...probes.denoising_errors import ErrorBank, error_bank
from ...probes.denoising_errors.result import Estimator
from ...probes.trace import trace
from ..information.mutual import check_reads
from ..information.words import chosen_words, without
from ..mediation.runs import check_each_once
from .bias_result import MEASURES, WordBias

Pictures: TypeAlias = Literal["neutral", "named"]
PICTURES: tuple[Pictures, ...] = ("neutral", "named")
TEMPLATE = "a photo of a {attribute} {subject}"


@dataclass(frozen=True)
class Wording:
    """The texts of one subject and attribute: with both words, and with some left out in their places."""

    named: str
    neutral: str
    attribute: str
    rest: str

    @classmethod
    def of(cls, template: str, subject: str, phrase: str, given_rest: bool) -> Wording:
        """Write them.

        Raises:
            ValueError: for a phrase and a subject that cannot be told apart in the text.
        """
        text = template.format(attribute=phrase, subject=subject)
        chosen = {w.name: w for w in chosen_words(text, [phrase, subject])}
        a, s = chosen[phrase], chosen[subject]
        if not given_rest:
            return cls(text, without(text, [a]), phrase, "")
        return cls(text, without(text, [a]), without(text, [s]), without(text, [a, s]))


@checked
def word_bias(  # noqa: PLR0913  # one experiment, all its settings by name
    model: Model,
    subjects: Sequence[str],
    attributes: Sequence[str] | Mapping[str, str],
    *,
    seeds: Sequence[int],
    template: str = TEMPLATE,
    pictures: Sequence[Pictures] = PICTURES,
    given_rest: bool = True,
    estimator: Estimator = "standard",
    steps: int = 20,
    guidance: float | None = None,
    levels: int = 16,
    draws: int = 1,
    batch: int = 32,
    store: str | Path | None = None,
    progress: Progress | None = None,
) -> WordBias:
    """Measure what the word of an attribute tells of pictures of a subject, in three ways.

    ``"redundancy"`` is the smaller of what both words tell, of the picture; ``"redundancy by cell"`` the same
    in each cell of the latents, added up; ``"conditional information"`` what the attribute's word tells, the
    subject known. Costs (2 + 2 x attributes) conditions x levels x 2 x draws rows a neutral picture, and 4
    conditions a named one.

    Args:
        model: an opened model that reads prompts.
        subjects: words, like professions.
        attributes: words, ``["woman", "man"]``; or by name what stands in the prompt, ``{"dark": "dark
            skinned"}``.
        seeds: of the pictures. Count on others: ``WordBias.correlations`` refuses the same.
        template: of prompts, with ``{attribute}`` and ``{subject}``. Left out are words in their places.
        pictures: what is looked at: ``"neutral"``, painted without the attribute's word, where the
            information says what they show already; ``"named"``, painted with it, where it says how much had
            to change.
        given_rest: words are left out of the prompt; False takes each as a text of its own for the
            redundancies, as published.
        estimator: as in ``mutual_information``; ``"orthogonal"`` is as published.
        steps: sampling steps.
        guidance: of the pictures; None is the model's default. They are measured without.
        levels: noise levels, as in ``Strata``.
        draws: at each level.
        batch: samples, or rows, in one call of the network.
        store: a folder that keeps predictions: a call that was stopped goes on.
        progress: called with (done, total, what); without it a bar comes by itself.

    Raises:
        ValueError: for no subjects or attributes, or one twice, a template without its places, and words that
            cannot be told apart in it.
    """
    check_reads(model)
    check_each_once("attributes", list(attributes))
    phrases = dict(attributes) if isinstance(attributes, Mapping) else {a: a for a in attributes}
    check_words(subjects, seeds, pictures, template)
    texts = {s: {a: Wording.of(template, s, p, given_rest) for a, p in phrases.items()} for s in subjects}
    sampling: dict[str, Any] = {"steps": steps, "guidance": guidance}
    how: dict[str, Any] = {
        "levels": levels,
        "draws": draws,
        "batch": batch,
        "store": store,
        "estimator": estimator,
    }
    sizes = (len(pictures), len(MEASURES), len(subjects), len(phrases), len(seeds))
    values, done = np.empty(sizes), 0
    with showing(progress) as show:
        for i, s in enumerate(subjects):
            for k, kind in enumerate(pictures):
                values[k, :, i] = _measured(model, texts[s], kind, seeds, sampling, how, show)
                done += 1
                show(done, len(subjects) * len(pictures), "subjects and kinds of pictures")
    coords = {"pictures": list(pictures), "measure": list(MEASURES), "subject": list(subjects),
              "attribute": list(phrases), "seed": list(seeds)}  # fmt: skip
    about = provenance(model, template=template, given_rest=int(given_rest), **sampling, levels=levels,
                       draws=draws, estimator=estimator)  # fmt: skip
    return WordBias(xr.Dataset({"values": (tuple(coords), values)}, coords, about))


def _measured(  # noqa: PLR0917  # one subject, as word_bias has it
    model: Model,
    texts: Mapping[str, Wording],
    kind: Pictures,
    seeds: Sequence[int],
    sampling: Mapping[str, Any],
    how: Mapping[str, Any],
    show: Progress,
) -> np.ndarray[Any, Any]:
    """Measures of one subject [measure, attribute, seed]; neutral pictures are those of all attributes."""
    groups = [texts] if kind == "neutral" else [{name: text} for name, text in texts.items()]
    found = []
    for group in groups:
        first = next(iter(group.values()))
        prompt = first.neutral if kind == "neutral" else first.named
        run = trace(model, [prompt] * len(seeds), seeds=seeds, progress=show, **sampling)
        conditions = {"": first.rest, "subject": first.neutral}
        for name, text in group.items():
            conditions |= {f"attribute {name}": text.attribute, f"both {name}": text.named}
        pairs = [("subject", ""), *((f"attribute {name}", "") for name in group)]
        bank = error_bank(model, run, conditions, pairs=pairs, seed=seeds[0], progress=show, **how)
        found += [_three(bank, name, how["estimator"]) for name in group]
    return np.stack(found, 1)


def _three(bank: ErrorBank, name: str, estimator: Estimator) -> np.ndarray[Any, Any]:
    """The measures of one attribute [measure, picture]."""
    pairs = (("subject", ""), (f"attribute {name}", ""), (f"both {name}", "subject"))
    subject, attribute, more = (bank.integral(bank.densities(*p, estimator))[0] for p in pairs)
    cells = torch.minimum(*(bank.map(*p, estimator) for p in pairs[:2])).sum((1, 2))
    return torch.stack([torch.minimum(subject, attribute), cells, more]).numpy()


def check_words(
    subjects: Sequence[str], seeds: Sequence[int], pictures: Sequence[str], template: str
) -> None:
    """Raise ValueError for what makes no experiment."""
    for name, given in (("subjects", subjects), ("seeds", seeds), ("pictures", pictures)):
        check_each_once(name, given)
    if any(template.count(place) != 1 for place in ("{attribute}", "{subject}")):
        raise UsageError(f"the template {template!r} needs {{attribute}} and {{subject}} once: {TEMPLATE!r}")
    try:
        template.format(attribute="", subject="")
    except (LookupError, ValueError) as error:
        raise UsageError(f"the template {template!r} has other places: {TEMPLATE!r} has all") from error
