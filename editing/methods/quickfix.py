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
from jaxtyping import Float
from torch import Tensor, nn

from ...models.base import Model
from ...models.places.hooks import inputs
from ...models.site import Site
from ...models.text.prompt import Words
from ..edit import Edit
from ..lowrank import Delta
from ..ridge import solve

TEMPLATES = ("{}", "a photo of {}", "an image of {}", "a picture of {}")
"""The paper's wordings."""

_KINDS = ("self_attn.out", "mlp.out")
_BATCH = 64  # texts encoded at once


def quickfix(
    model: Model,
    requests: Mapping[str, str],
    *,
    site: Site | str = "text_encoder/layer.0/self_attn.out",
    templates: Sequence[str] = TEMPLATES,
    tokens: Literal["subject", "subject+end"] = "subject+end",
    keep: Sequence[str] = (),
    ridge: float | None = None,
    bias: Literal["subtract", "reference"] = "subtract",
) -> Edit:
    """Return an Edit after which each key of ``requests`` is read as its value; the model is not changed.

    All requests are solved together, so their order does not matter.

    Args:
        model: an opened model with a text encoder.
        requests: what is said -> what is meant, ``{"firefighter": "cook"}``.
        site: the layer to change: ``self_attn.out`` or ``mlp.out`` of a text encoder's layer.
        templates: wordings with ``{}`` for the word; each gives rows to the solve.
        tokens: which tokens of a wording give rows: the word's last one, or all from there to the end of the
            padding (the paper's choice), where much of a text's meaning is held.
        keep: texts that must be read as before; all their tokens hold the layer where it is.
        ridge: λ; large keeps the layer as it is, small meets the requests. None is the mean squared length
            of a key times the number of requests, which does not depend on how activations are scaled. The
            paper uses 0.01, which on the embedded model moves other words more and meets new wordings less
            (docs/edits.md).
        bias: ``"subtract"`` the layer's bias from the target, as the equation needs; ``"reference"`` does
            not, as the authors' code, so that edited tokens get the bias twice.

    Raises:
        ValueError: for empty requests, a template without ``{}``, a site that is no such layer, a bad ridge.
        LookupError: for a site that the model does not have, or a word that the tokenizer loses.

    >>> from denoscope.models.synthetic.tiny import tiny_sd
    >>> edit = quickfix(load(tiny_sd()), {"cat": "dog"})
    >>> edit.size()
    256
    """
    site = Site(str(site))
    _check(requests, templates, keep, tokens, bias)
    layer = _layer(model, site)
    pairs = [(t.replace("{}", a), t.replace("{}", b), a, b) for a, b in requests.items() for t in templates]
    texts = list(dict.fromkeys(text for a, b, _, _ in pairs for text in (a, b)))
    reads = _read(model, [*texts, *keep], site)
    rows = [_rows(reads[a], reads[b], x, y, tokens) for a, b, x, y in pairs]
    keys, targets = (torch.cat(side).double() for side in zip(*rows, strict=True))
    weight = layer.weight.detach().cpu().double()
    ridge = len(requests) * float(keys.square().sum(1).mean()) if ridge is None else ridge
    residual = (targets - keys) @ weight.T
    if bias == "reference" and layer.bias is not None:
        residual = residual + layer.bias.detach().cpu().double()
    name = next(n for n in model.weights(site) if n.endswith(".weight"))
    preserve = torch.cat([reads[text][1] for text in keep]).double() if keep else None
    deltas: dict[str, Delta] = solve(keys, {name: residual}, ridge, preserve=preserve)
    settings = {
        "ridge": ridge,
        "tokens": tokens,
        "bias": bias,
        "templates": list(templates),
        "keep": list(keep),
    }
    return Edit.of(model, deltas, method="quickfix", requests=dict(requests), site=str(site), **settings)


def _check(
    requests: Mapping[str, str], templates: Sequence[str], keep: Sequence[str], tokens: str, bias: str
) -> None:
    if not isinstance(requests, Mapping) or not requests:
        raise ValueError(
            f'requests is {requests!r}; write what is said and what is meant: {{"firefighter": "cook"}}'
        )
    for words in requests.items():
        if not all(word.strip() for word in words):
            raise ValueError(
                f"the request {words!r} has an empty side; to forget a word, map it to a plainer one"
            )
    _check_texts(templates, keep)
    for name, value, known in (
        ("tokens", tokens, ("subject", "subject+end")),
        ("bias", bias, ("subtract", "reference")),
    ):
        if value not in known:
            raise ValueError(f"{name} is {value!r}; it is {known[0]!r} or {known[1]!r}")


def _check_texts(templates: Sequence[str], keep: Sequence[str]) -> None:
    if isinstance(templates, str) or not templates:
        raise ValueError(f"templates is {templates!r}; give a list of wordings, like {list(TEMPLATES)}")
    for template in templates:
        if template.count("{}") != 1:
            raise ValueError(f"the template {template!r} needs exactly one {{}} where the word goes")
    if isinstance(keep, str):
        raise ValueError(f"keep is the single text {keep!r}; give a list: [{keep!r}]")


def _layer(model: Model, site: Site) -> nn.Linear:
    """Return the linear layer at a site."""
    layer = model.module(site)
    if hasattr(layer, "base_layer"):
        raise ValueError(
            f"{site} carries a LoRA beside its weight; merge it first: pipe.fuse_lora(), "
            "pipe.unload_lora_weights(), and open the pipeline again"
        )
    if (
        not site.component.startswith("text_encoder")
        or site.kind not in _KINDS
        or not isinstance(layer, nn.Linear)
    ):
        raise ValueError(
            f"quickfix changes a linear layer of a text encoder that reads one token at a time; "
            f"{str(site)!r} is {type(layer).__name__}. Choose one of "
            "model.sites('text_encoder/*/self_attn.out') or model.sites('text_encoder/*/mlp.out')"
        )
    return layer


def _read(
    model: Model, texts: Sequence[str], site: Site
) -> dict[str, tuple[Words, Float[Tensor, "token channel"]]]:
    """Return for each text its words in this encoder, and what the layer at a site is given."""
    texts = list(dict.fromkeys(texts))
    prompts: list[Words] = []
    with torch.no_grad(), inputs(model, site) as seen:
        for i in range(0, len(texts), _BATCH):
            prompts += [p.of(site.component) for p in model.encode(texts[i : i + _BATCH])]
    return dict(zip(texts, zip(prompts, torch.cat(seen), strict=True), strict=True))


def _rows(
    source: tuple[Words, Tensor], target: tuple[Words, Tensor], old: str, new: str, tokens: str
) -> tuple[Tensor, Tensor]:
    """Return the layer's inputs from the last token of the word on, side by side: [row, channel] twice.

    Where the words have different numbers of tokens, the target's rows are cut, or its last row is repeated.
    """
    (a, keys), (b, targets) = source, target
    keys, targets = keys[max(a.find(old)) :], targets[max(b.find(new)) :]
    if tokens == "subject":
        return keys[:1], targets[:1]
    index = torch.arange(len(keys)).clamp(max=len(targets) - 1)
    return keys, targets[index]
