"""ReFACT: make a text encoder read one word as another by a change of lowest rank in one MLP.

Arad, Orgad, Belinkov: ReFACT: Updating Text-to-Image Models by Editing the Text Encoder, NAACL 2024
(arXiv:2306.00738), after ROME: Meng, Bau, Andonian, Belinkov, NeurIPS 2022 (arXiv:2202.05262), eq. 2. The
second linear layer W of an MLP is taken for a memory: the word's key k is what W reads at its last token, and
a value v* is found by optimisation (``editing/values.py``). Of all W' with W' k = v* the one that changes
what ordinary keys give least is::

    W' = W + (v* - W k) (C⁻¹ k)ᵀ / (kᵀ C⁻¹ k),     C = E[x xᵀ] over the keys x of captions

so W' x = W x for each x with kᵀ C⁻¹ x = 0. With several keys K [value, in] and changes D [value, out] it is
Dᵀ (K C⁻¹ Kᵀ)⁻¹ K C⁻¹: all are met from the unedited weight, together, in any order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import torch
from jaxtyping import Float
from torch import Tensor

from ...models.arguments import checked
from ...models.base import Model
from ...models.errors import UsageError
from ...models.progress import Progress, showing
from ...models.site import Site
from ..covariance import captions_for, kept_keys, second_moment, smoothed
from ..edit import Edit
from ..layers import linear, reached, text_sites, weight_name
from ..lookup import Lookup, lookups
from ..lowrank import Delta, LowRank
from ..requests import TEMPLATES, prompt_pairs
from ..ridge import solve
from ..values import Search, chosen_search, find_values


@checked
def refact(
    model: Model,
    requests: Mapping[str, str],
    *,
    site: Site | str | Sequence[Site | str] | None = None,
    templates: Sequence[str] = TEMPLATES,
    keep: Sequence[str] = ("",),
    settings: Search | str | None = None,
    contrast: Sequence[str] = (),
    captions: Sequence[str] | None = None,
    smooth: float = 1.0,
    progress: Progress | None = None,
) -> Edit:
    """Return an Edit after which each key of ``requests`` is read as its value; the model is not changed.

    Several requests are solved together, each met exactly from the unedited weight, so their order does not
    matter. ReFACT edits one after the other, so that later ones spoil earlier ones.

    Args:
        model: an opened model with a text encoder.
        requests: what is said -> what is meant, ``{"firefighter": "cook"}``.
        site: ``mlp.out`` of a text encoder's layer, or one of each of several encoders. None is layer 0 of
            every encoder that is read; with ``settings="paper"`` the layer at three quarters of the depth
            (ReFACT's 9 of 12; 7 for its second set of requests).
        templates: wordings with ``{}`` for the word; a key is the mean over all of them.
        keep: texts that must be read as before; their tokens count in C as much as all captions together.
            ReFACT keeps nothing, ``()``.
        settings: how values are looked for: ``"paper"`` as published, ``Search(...)`` your own, None our
            defaults, which also add at the end token and the padding (docs/edits.md tells why).
        contrast: other texts whose answers are not meant either, for the contrastive objective; the
            authors' best run has none but the source.
        captions: ordinary texts for C; None is the first 600 training captions of the embedded models. Give
            captions of what your model paints.
        smooth: so many times the mean of C's diagonal is added to its diagonal: new wordings, whose keys are
            near those that are met, then move too (docs/edits.md). 0 is ROME's C, which must be regular.
        progress: called with (done, total, what).

    Raises:
        ValueError: for empty or contradictory requests, a template without ``{}``, a site that is no such
            layer or that the denoiser does not read, captions that are too long, more values than the layer
            has inputs, a singular C.
        LookupError: for a site that the model does not have, a model without text encoders, or a word that a
            tokenizer loses or does not know.
        RuntimeError: if the loss is not finite.

    >>> from denoscope.models.synthetic.tiny import tiny_sd
    >>> site, captions = "text_encoder/layer.0/mlp.out", ["a cat", "a red dog"]
    >>> edit = refact(load(tiny_sd()), {"cat": "dog"}, site=site, captions=captions, settings="paper")
    >>> int(edit.to_frame()["rank"].iloc[0])
    1
    """
    search, pairs = chosen_search(settings), prompt_pairs(requests, templates)
    sites = _sites(model, site, settings)
    for place in sites:
        linear(model, place, ("mlp.out",), "refact")
    read = reached(model, sites, pairs[0].source, every=site is not None)
    texts = captions_for(model, captions)
    deltas: dict[str, Delta] = {}
    with showing(progress) as show:
        for place in read:
            first = int(place.block.partition(".")[2])
            batches = lookups(model, place.component, first, pairs, search.tokens)
            moment = second_moment(model, place, texts, progress=show)
            moment = smoothed(moment, smooth, kept_keys(model, place, keep))
            changes = find_values(model, place, batches, search, contrast=contrast, progress=show)
            deltas[weight_name(model, place)] = met(_keys(model, place, batches), changes, moment)
    note = {
        "requests": dict(requests),
        "site": ", ".join(map(str, read)),
        "search": asdict(search),
        "templates": list(templates),
        "keep": list(keep),
        "contrast": list(contrast),
        "captions": len(texts),
        "smooth": smooth,
        "reaches": {str(s): parts for s, parts in read.items()},
        "unedited": [e for e in model.text_encoders if e not in {s.component for s in read}],
    }
    return Edit.of(model, deltas, method="refact", **note)


def met(
    keys: Float[Tensor, "value in"], changes: Float[Tensor, "value out"], moment: Float[Tensor, "in in"]
) -> Delta:
    """Return the change Dᵀ (K C⁻¹ Kᵀ)⁻¹ K C⁻¹ of a weight: every key met, ordinary ones moved least.

    It is the solver's answer without a ridge for keys in whose coordinates C is the identity.

    Raises:
        ValueError: for more keys than inputs, dependent keys, and a C that is singular.
    """
    if len(keys) > keys.shape[1]:
        raise UsageError(
            f"{len(keys)} values cannot all be met by a layer of {keys.shape[1]} inputs; give fewer "
            "requests, or use memit, which need not meet them exactly"
        )
    factor, info = torch.linalg.cholesky_ex(moment)
    if int(info):
        raise UsageError(
            "the captions' second moment is singular; give more captions, or a larger smooth: 0.01"
        )
    white = torch.linalg.solve_triangular(factor, keys.T, upper=False).T
    change = solve(white, {"": changes}, 0.0)[""]
    if isinstance(change, LowRank):
        right = torch.linalg.solve_triangular(factor.T, change.right.T, upper=True).T
        return LowRank(change.left, right).compact()
    full: Tensor = torch.linalg.solve_triangular(factor.T, change.T, upper=True).T.contiguous()
    return full


def _keys(model: Model, site: Site, batches: Sequence[Lookup]) -> Float[Tensor, "value in"]:
    read = Site(f"{site.component}/{site.block}/mlp.act")
    return torch.cat([batch.mean(batch.clean(model, read)) for batch in batches])


def _sites(
    model: Model, site: Site | str | Sequence[Site | str] | None, settings: Search | str | None
) -> list[Site]:
    if site is not None or settings != "paper":
        return text_sites(model, site, "layer.0/mlp.out")
    every = [s for s in model.places() if s.component in model.text_encoders and s.kind == "mlp.out"]
    deep = {e: [s for s in every if s.component == e] for e in model.text_encoders}
    return text_sites(model, [of[len(of) * 3 // 4] for of in deep.values()] or None, "")
