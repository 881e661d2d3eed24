"""Diff-QuickFix: make a text encoder read one word as another, in closed form, in well under a second.

Basu, Zhao, Morariu, Feizi, Manjunatha: Localizing and Editing Knowledge in Text-to-Image Generative Models,
ICLR 2024 (arXiv:2310.13730), eq. 9. Causal tracing finds what a word means in the first self-attention layer
of a CLIP text encoder; its output projection W is changed so that what it gives for the source prompt is what
it gave for the target prompt::

    min_W  Σ_i ‖W k_i + b - v_i‖² + λ ‖W - W0‖²

with one row i for each token from the last token of the word on: k the projection's input for the source
prompt, v its output for the target prompt. At layer 0 both depend on tokens and positions alone: no picture
is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch

from ...models.arguments import checked
from ...models.base import Model
from ...models.errors import NotFoundError, UsageError
from ...models.site import Site
from ...probes.text_layers import TextLayer
from ...probes.text_states import layer_inputs
from ..edit import Edit
from ..layers import linear, reached, text_sites, weight_name
from ..lowrank import Delta
from ..requests import (
    TEMPLATES,
    PromptPair,
    Tokens,
    kept_rows,
    prompt_pairs,
    rows,
    texts_of,
)
from ..ridge import solve
from ..text_edit import SpaceRows

_KINDS = ("self_attn.out", "mlp.out")
Bias = Literal["subtract", "reference"]


@checked
def quickfix(
    model: Model,
    requests: Mapping[str, str],
    *,
    site: Site | str | Sequence[Site | str] | None = None,
    templates: Sequence[str] = TEMPLATES,
    tokens: Tokens = "subject+end",
    keep: Sequence[str] = ("",),
    ridge: float | None = None,
    ridge_scale: float = 1.0,
    bias: Bias = "subtract",
) -> Edit:
    """Return an Edit after which each key of ``requests`` is read as its value; the model is not changed.

    All requests are solved together, so their order does not matter.

    Args:
        model: an opened model with a text encoder.
        requests: what is said -> what is meant, ``{"firefighter": "cook"}``.
        site: the layer to change, ``self_attn.out`` or ``mlp.out`` of a text encoder's layer, or one of each
            of several encoders. None is the first self-attention of every text encoder, so that the denoiser
            reads the target wherever it reads. The edit's note says what it ``reaches`` ("tokens", "pooled"),
            and which encoders are ``unedited``.
        templates: wordings with ``{}`` for the word; each gives rows to the solve.
        tokens: which tokens of a wording give rows: the word's last one, or all from there to the end of the
            padding (the paper's choice), where much of a text's meaning is held.
        keep: texts that must be read as before; all their tokens hold the layer where it is. The empty text,
            which guidance's other branch reads, would move far otherwise (docs/edits.md); the paper keeps
            nothing, ``()``.
        ridge: λ; large keeps the layer as it is, small meets the requests. None is the mean squared length
            of a key times the number of requests, which does not depend on how activations are scaled. The
            paper uses 0.01, which on the embedded model moves other words more and meets new wordings less
            (docs/edits.md).
        ridge_scale: λ is multiplied by it; less than 1 where many kept texts hold the layer by themselves.
        bias: ``"subtract"`` the layer's bias from the target, as the equation needs; ``"reference"`` does
            not, as the authors' code, so that edited tokens get the bias twice.

    Raises:
        ValueError: for empty requests, a template without ``{}``, a site that is no such layer or that the
            denoiser does not read, several of one encoder, a bad ridge or
            scale of it.
        LookupError: for a site that the model does not have, a model without text encoders, or a word that a
            tokenizer loses or does not know.

    >>> from denoscope.models.synthetic.tiny import tiny_sd
    >>> edit = quickfix(load(tiny_sd()), {"cat": "dog"})
    >>> edit.size()
    256
    """
    pairs = prompt_pairs(requests, templates)
    if not 0 < ridge_scale < float("inf"):
        raise UsageError(f"ridge_scale is {ridge_scale}; it is a number above 0, 1 by default")
    sites = text_sites(model, site, "layer.0/self_attn.out")
    layers = {s: linear(model, s, _KINDS, "quickfix") for s in sites}
    read = reached(model, sites, pairs[0].source, every=site is not None)
    deltas: dict[str, Delta] = {}
    ridges: dict[str, float] = {}
    for place in read:
        layer = layers[place]
        made = site_rows(model, place, pairs, tokens, keep)
        usual = len(requests) * float(made.keys.square().sum(1).mean()) if ridge is None else ridge
        ridges[str(place)] = ridge_scale * usual
        residual = (made.targets - made.keys) @ layer.weight.detach().cpu().double().T
        if bias == "reference" and layer.bias is not None:
            residual = residual + layer.bias.detach().cpu().double()
        name = made.layers[0].weight
        deltas |= solve(made.keys, {name: residual}, ridges[str(place)], preserve=made.kept)
    note = {
        "requests": dict(requests),
        "ridge": ridges,
        "tokens": tokens,
        "bias": bias,
        "templates": list(templates),
        "keep": list(keep),
        "site": ", ".join(map(str, read)),
        "reaches": {str(s): parts for s, parts in read.items()},
        "unedited": [e for e in model.text_encoders if e not in {s.component for s in read}],
    }
    return Edit.of(model, deltas, method="quickfix", **note)


def site_rows(  # noqa: PLR0917  # as quickfix has them
    model: Model,
    site: Site,
    pairs: Sequence[PromptPair],
    tokens: Tokens,
    keep: Sequence[str],
    ridge: float = 0.0,
) -> SpaceRows:
    """Return the rows of the layer at a site, one wish for each pair."""
    states = layer_inputs(model, [*texts_of(pairs), *keep], site)
    try:
        made = [rows(states, [pair], tokens) for pair in pairs]
    except NotFoundError as error:
        others = [e for e in model.text_encoders if e != site.component]
        hint = f"; site= names the layers of other text encoders ({', '.join(others)})" if others else ""
        raise NotFoundError(f"{site.component}: {error}{hint}") from None
    keys, targets = (torch.cat(x) for x in zip(*made, strict=True))
    owners = [i for i, (k, _) in enumerate(made) for _ in k]
    layer = linear(model, site, _KINDS, "quickfix")
    layers = [TextLayer(weight_name(model, site), layer, str(site), layer.in_features)]
    return SpaceRows(str(site), layers, keys, targets, owners, kept_rows(states, keep), None, ridge)
