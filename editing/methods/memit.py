"""MEMIT: many words at once, read as others by small changes of several MLPs.

Meng, Sharma, Andonian, Belinkov, Bau: Mass-Editing Memory in a Transformer, ICLR 2023 (arXiv:2210.07229),
eq. 14, 19 and 20; EMCID (Xiong et al. 2024, arXiv:2403.13807) edits the text encoders of diffusion models so.
Values δ are found at the last of the layers (``editing/values.py``). Then, from the lowest layer l on, each
takes an equal share of what is still missing there, R = (δ - what came already) / (layers from l on), and ::

    W' - W = Rᵀ K (λ C + Kᵀ K)⁻¹,     C = E[x xᵀ] over the keys x of captions

with one row of K for each wording and token, as the layer reads it below the changes that were made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from functools import partial

import torch
from torch import Tensor

from ...models.arguments import checked
from ...models.base import Model
from ...models.errors import UsageError
from ...models.places.hooks import hooked
from ...models.progress import Progress, showing
from ...models.site import Site
from ..covariance import captions_for, kept_keys, second_moment, smoothed
from ..edit import Edit
from ..layers import linear, reached, text_sites, weight_name
from ..lookup import lookups
from ..lowrank import Delta, dense
from ..requests import TEMPLATES, PromptPair, prompt_pairs
from ..ridge import solve
from ..values import Search, chosen_search, find_values

PAPER = 15000.0
"""λ of MEMIT's published settings, for one row a request."""


@checked
def memit(
    model: Model,
    requests: Mapping[str, str],
    *,
    site: Site | str | Sequence[Site | str] | None = None,
    templates: Sequence[str] = TEMPLATES,
    keep: Sequence[str] = ("",),
    settings: Search | str | None = None,
    contrast: Sequence[str] = (),
    captions: Sequence[str] | None = None,
    weight: float | None = None,
    smooth: float = 1.0,
    progress: Progress | None = None,
) -> Edit:
    """Return an Edit after which each key of ``requests`` is read as its value; the model is not changed.

    All requests are solved together, so their order does not matter. Built is the alignment of texts alone,
    not EMCID's second half, which takes values from the denoiser's predictions.

    Args:
        model: an opened model with a text encoder.
        requests: what is said -> what is meant, ``{"firefighter": "cook"}``.
        site: ``mlp.out`` of one layer or several, of one text encoder or several. None is layer 0 of every
            encoder that is read: on the embedded model later ones do next to nothing (docs/edits.md).
        templates: wordings with ``{}`` for the word; each gives rows to the solve.
        keep: texts whose tokens hold the layers where they are; MEMIT keeps nothing, ``()``.
        settings: how values are looked for, as ``refact`` takes it; with ``"paper"`` λ is MEMIT's too.
        contrast: other texts of the contrastive objective.
        captions: ordinary texts for C; None is the first 600 training captions of the embedded models.
        weight: λ; large holds the layers where they are. None is 1, chosen on the embedded
            model; 15000 with ``settings="paper"``.
        smooth: so many times the mean of C's diagonal is added to its diagonal; 0 is MEMIT's C.
        progress: called with (done, total, what).

    Raises:
        ValueError: for empty or contradictory requests, a template without ``{}``, a site that is no such
            layer or that the denoiser does not read, a bad weight, captions that are too long; and for Gemma,
            whose MLPs are read through a norm, so that what several give does not add up.
        LookupError: for a site that the model does not have, a model without text encoders, or a word that a
            tokenizer loses or does not know.
        RuntimeError: if the loss is not finite.

    >>> from denoscope.models.synthetic.tiny import tiny_sd
    >>> sites = ["text_encoder/layer.0/mlp.out", "text_encoder/layer.1/mlp.out"]
    >>> edit = memit(load(tiny_sd()), {"cat": "dog"}, site=sites, captions=["a cat", "a red dog"])
    >>> len(edit.deltas)
    2
    """
    search, pairs = chosen_search(settings), prompt_pairs(requests, templates)
    if weight is not None and not 0 < weight < float("inf"):
        raise UsageError(f"weight is {weight}; it is a number above 0, 1 by default")
    usual = PAPER if settings == "paper" else 1.0
    encoders = _encoders(model, site, pairs[0].source)
    texts = captions_for(model, captions)
    spread = _Spread(
        model, pairs, search, texts, tuple(keep), usual if weight is None else weight, tuple(contrast), smooth
    )
    with showing(progress) as show:
        for layers in encoders.values():
            spread.over(layers, show)
    note = {
        "requests": dict(requests),
        "site": ", ".join(map(str, spread.weights)),
        "search": asdict(search),
        "templates": list(templates),
        "keep": list(keep),
        "contrast": list(contrast),
        "captions": len(texts),
        "smooth": smooth,
        "weight": {str(s): w for s, w in spread.weights.items()},
        "unedited": [e for e in model.text_encoders if e not in encoders],
    }
    return Edit.of(model, spread.deltas, method="memit", **note)


def _encoders(
    model: Model, site: Site | str | Sequence[Site | str] | None, text: str
) -> dict[str, list[Site]]:
    """Return the layers to change, by text encoder, the lowest first."""
    if site is None or isinstance(site, Site | str) or not site:
        sites = text_sites(model, site, "layer.0/mlp.out")
    else:
        sites = list(dict.fromkeys(Site(str(s)) for s in site))
    for place in sites:
        linear(model, place, ("mlp.out",), "memit")
        if Site(f"{place.component}/{place.block}/mlp.normed") in model.places():
            raise UsageError(
                f"{place} is read through a norm, so the changes of several layers do not add up; use refact"
            )
    read = sorted(reached(model, sites, text, every=site is not None), key=_layer)
    return {e: [s for s in read if s.component == e] for e in dict.fromkeys(s.component for s in read)}


def _layer(site: Site) -> int:
    return int(site.block.partition(".")[2])


@dataclass
class _Spread:
    """Requests, and what was found for them so far."""

    model: Model
    pairs: Sequence[PromptPair]
    search: Search
    captions: Sequence[str]
    keep: Sequence[str]
    weight: float
    contrast: Sequence[str]
    smooth: float
    deltas: dict[str, Delta] = field(default_factory=dict)
    weights: dict[Site, float] = field(default_factory=dict)

    def over(self, layers: Sequence[Site], progress: Progress) -> None:
        """Solve the layers of one encoder, from the lowest on."""
        model, last, encoder = self.model, layers[-1], layers[0].component
        upper, lower = (
            lookups(model, encoder, _layer(s), self.pairs, self.search.tokens) for s in (last, layers[0])
        )
        found = find_values(model, last, upper, self.search, contrast=self.contrast, progress=progress)
        parts = found.split([len(batch.asked) for batch in upper])
        wanted = torch.cat([d[batch.value] for d, batch in zip(parts, upper, strict=True)])
        end = Site(f"{encoder}/{last.block}/resid.post")
        clean = torch.cat([batch.clean(model, end) for batch in lower])
        changed: dict[Site, Tensor] = {}
        for i, site in enumerate(layers):
            with _with(model, changed):
                keys = torch.cat([batch.clean(model, _read(site)) for batch in lower])
                come = torch.cat([batch.clean(model, end) for batch in lower]) - clean
            moment = second_moment(model, site, self.captions, progress=progress)
            moment = self.weight * smoothed(moment, self.smooth)
            share = (wanted - come) / (len(layers) - i)
            kept = kept_keys(model, site, self.keep)
            (delta,) = solve(keys, {"": share}, 0.0, preserve=kept, covariance=moment).values()
            changed[site], self.weights[site] = dense(delta), self.weight
            self.deltas[weight_name(model, site)] = delta


def _read(site: Site) -> Site:
    """What the layer at a site reads."""
    return Site(f"{site.component}/{site.block}/mlp.act")


def _with(model: Model, changed: Mapping[Site, Tensor]) -> AbstractContextManager[None]:
    """Let changes of layers act, without writing to a weight."""
    given: dict[Site, Tensor] = {}

    def keep(site: Site, x: Tensor) -> None:
        given[site] = x

    def add(site: Site, x: Tensor) -> tuple[slice, Tensor]:
        return slice(0, len(x)), x + given[site] @ changed[site].T.to(x)

    keeping = [(_read(site), partial(keep, site)) for site in changed]
    return hooked(model, [*keeping, *((site, partial(add, site)) for site in changed)])
