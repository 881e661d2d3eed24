"""How texts look inside a model: the states of their tokens, by input space.

A layer of a text encoder reads that encoder's hidden states; the text layers of a denoiser read what all
encoders together say, token by token; some read one pooled vector. Each is a space of its own, with its own
width and its own tokens, so each has its own function here. Edits take their keys from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from jaxtyping import Float
from torch import Tensor

from ..models.base import Model
from ..models.errors import StateError, UsageError
from ..models.html import Brief
from ..models.places.hooks import inputs
from ..models.run.context import TEXT, Call
from ..models.site import Site
from ..models.text.prompt import Prompt, Words
from .intervene import Intervention, intervening

TEXT_BATCH = 64
"""Texts encoded at once."""


@dataclass(frozen=True, eq=False, repr=False)
class TokenStates(Brief):
    """One text in one input space.

    Args:
        words: its tokens there; ``words.find("cat")`` gives positions in ``values``.
        values: the state of each token, padding included.

    Raises:
        ValueError: if there is not one state for each token.
    """

    words: Words
    values: Float[Tensor, "token channel"]

    def __post_init__(self) -> None:
        if len(self.words.tokens) != len(self.values):
            raise UsageError(
                f"{self.words.text!r} has {len(self.words.tokens)} tokens but {len(self.values)} states"
            )


def layer_inputs(model: Model, texts: Sequence[str], site: Site | str) -> dict[str, TokenStates]:
    """Return what the layer at a text-encoder site is given for each text, on the CPU.

    Raises:
        LookupError: for a site that the model does not have.
        ValueError: for a site outside the text encoders, and texts that are too long.
        RuntimeError: if the encoder does not read each text exactly once, token by token.
    """
    site = Site(str(site))
    _check_in_encoder(model, site)
    with inputs(model, site) as seen:
        prompts = encoded(model, texts)
    values = torch.cat(seen) if seen else torch.empty(0)
    if values.ndim != 3 or len(values) != len(prompts):
        raise StateError(
            f"{site} was given {tuple(values.shape)} for {len(prompts)} texts, not one state for each token"
        )
    read = zip(prompts.items(), values, strict=True)
    return {text: TokenStates(prompt.of(site.component), x) for (text, prompt), x in read}


def parts_reached(model: Model, site: Site | str, text: str) -> tuple[str, ...]:
    """Return what the denoiser reads of a text that depends on a text-encoder site: "tokens", "pooled".

    Nothing, for a layer behind the last one that is read: the last of Stable Diffusion XL's first encoder.

    Raises:
        LookupError: for a site that the model does not have.
        ValueError: for a site outside the text encoders, and texts that are too long.
    """
    site = Site(str(site))
    _check_in_encoder(model, site)
    try:
        Call(TEXT, {}, layers_read=model.layers_read()).check_read(site)
    except UsageError:
        return ()
    with torch.no_grad():
        (plain,) = model.encode([text])
        with intervening(model, Intervention(site, lambda x, _: 1 - x)):
            (other,) = model.encode([text])
    read = {"tokens": (plain.embeds, other.embeds), "pooled": (plain.pooled, other.pooled)}
    return tuple(n for n, (a, b) in read.items() if a is not None and b is not None and not torch.equal(a, b))


def token_states(model: Model, texts: Sequence[str]) -> dict[str, TokenStates]:
    """Return what the denoiser reads of each text, token by token, as the family joins its encoders.

    Raises:
        ValueError: for texts that are too long.
    """
    return {text: TokenStates(p, p.embeds.cpu()) for text, p in encoded(model, texts).items()}


def pooled_states(model: Model, texts: Sequence[str]) -> dict[str, Float[Tensor, " channel"]]:
    """Return the one vector that the denoiser reads of each text beside its tokens.

    Raises:
        ValueError: for a family that has none, and texts that are too long.
    """
    found = {}
    for text, prompt in encoded(model, texts).items():
        if prompt.pooled is None:
            raise UsageError(f"{model.name} reads no pooled text; take token_states")
        found[text] = prompt.pooled.cpu()
    return found


def site_states(
    model: Model, texts: Sequence[str], sites: Sequence[Site]
) -> dict[Site, Float[Tensor, "text token channel"]]:
    """Return what passes through text-encoder sites, row by row as the texts are given.

    Raises:
        LookupError: for a site that the model does not have.
        ValueError: for texts that are too long.
    """
    found: dict[Site, list[Tensor]] = {site: [] for site in sites}

    def keep(site: Site) -> Intervention:
        return Intervention(site, lambda x, _: found[site].append(x.detach().clone()))

    for first in range(0, len(texts), TEXT_BATCH):
        with torch.no_grad(), intervening(model, *map(keep, sites)):
            model.encode(texts[first : first + TEXT_BATCH])
    return {site: torch.cat(x) for site, x in found.items()}


def encoded(model: Model, texts: Sequence[str]) -> dict[str, Prompt]:
    """Encode each text once, however often it is named; in the order in which they are named first."""
    if isinstance(texts, str):
        raise UsageError(f"texts is the single text {texts!r}; give a list: [{texts!r}]")
    once = list(dict.fromkeys(texts))
    if not once:
        raise UsageError("texts is empty; give at least one")
    with torch.no_grad():
        parts = [model.encode(once[first : first + TEXT_BATCH]) for first in range(0, len(once), TEXT_BATCH)]
    return dict(zip(once, chain.from_iterable(parts), strict=True))


def _check_in_encoder(model: Model, site: Site) -> None:
    model.place(site)
    if site.component not in model.text_encoders:
        encoders = ", ".join(model.text_encoders) or "none"
        raise UsageError(f"{site} is not in a text encoder of {model.name}; it has {encoders}")
