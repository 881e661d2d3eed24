"""Which linear layers of the text encoders a closed form changes."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ..models.base import Model
from ..models.errors import NotFoundError, UsageError
from ..models.site import Site
from ..probes.text_states import parts_reached


def text_sites(model: Model, given: Site | str | Sequence[Site | str] | None, usual: str) -> list[Site]:
    """Return the layers to change: those given, or the usual one of every text encoder.

    Raises:
        LookupError: for a model without text encoders.
        ValueError: for no layer, or several of one encoder.
    """
    if given is None:
        given = [f"{encoder}/{usual}" for encoder in model.text_encoders]
        if not given:
            raise NotFoundError(f"{model.name} has no text encoder, so no word of a prompt can be edited")
    sites = [Site(str(s)) for s in ([given] if isinstance(given, Site | str) else given)]
    if not sites or len({s.component for s in sites}) < len(sites):
        raise UsageError(
            f"site is {list(map(str, sites))}; name one layer for each text encoder at most: each is solved "
            "as if it were the only one there"
        )
    return sites


def reached(model: Model, sites: Sequence[Site], text: str, *, every: bool) -> dict[Site, tuple[str, ...]]:
    """Return what the denoiser reads of each layer; without ``every``, of those alone that it does read.

    Raises:
        LookupError: for a site that the model does not have.
        ValueError: for a layer that it does not read.
    """
    found = {site: parts_reached(model, site, text) for site in sites}
    silent = [site for site, parts in found.items() if not parts]
    if silent and (every or len(silent) == len(found)):
        raise UsageError(
            f"{model.name} does not read what {silent[0]} does, so changing it would change nothing; "
            "choose an earlier layer"
        )
    return {site: parts for site, parts in found.items() if parts}


def linear(model: Model, site: Site, kinds: Sequence[str], method: str) -> nn.Linear:
    """Return the linear layer at a site.

    Args:
        model: an opened model.
        site: where.
        kinds: those that the method changes, ``mlp.out``.
        method: its name, for the message.

    Raises:
        LookupError: for a site that the model does not have.
        ValueError: for another layer, a quantised one, and one with a LoRA beside it.
    """
    layer = model.module(site)
    if hasattr(layer, "base_layer"):
        raise UsageError(
            f"{site} carries a LoRA beside its weight; merge it first: pipe.fuse_lora(), "
            "pipe.unload_lora_weights(), and open the pipeline again"
        )
    if "quantized" in type(layer).__module__:
        raise UsageError(
            f"{site} is quantised ({type(layer).__module__}), and its weight cannot be edited; open the "
            "model without quantisation, edit it, and quantise afterwards"
        )
    if (
        not site.component.startswith("text_encoder")
        or site.kind not in kinds
        or not isinstance(layer, nn.Linear)
    ):
        choices = " or ".join(f"model.sites('text_encoder/*/{kind}')" for kind in kinds)
        raise UsageError(
            f"{method} changes a linear layer of a text encoder that reads one token at a time; "
            f"{str(site)!r} is {type(layer).__name__}. Choose one of {choices}"
        )
    return layer


def weight_name(model: Model, site: Site) -> str:
    """Return the full name of the weight of the layer at a site."""
    return next(name for name in model.weights(site) if name.endswith(".weight"))
