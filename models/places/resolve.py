"""From names to modules: one resolver, driven by classes and attributes, for every family.

Never resolves by a literal path, and never takes an attention module's own output for "attention out"
(it holds the residual when ``residual_connection=True``); see docs/sites.md.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from ..site import Site
from .blocks import Place
from .text import text_places
from .transformer import transformer_places
from .unet import unet_places

_RESOLVERS = {"unet": unet_places, "transformer": transformer_places, "text_encoder": text_places}


def resolve(components: Mapping[str, nn.Module]) -> dict[Site, Place]:
    """Return every site of a pipeline's components, in network order."""
    found: dict[Site, Place] = {}
    for name, module in components.items():
        kind = "text_encoder" if name.startswith("text_encoder") else name
        if kind in _RESOLVERS:
            found.update(_RESOLVERS[kind](name, module))
    return found
