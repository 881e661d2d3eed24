"""From names to modules: one resolver, driven by classes and attributes, for every family.

Never resolves by a literal path, and never takes an attention module's own output for "attention out"
(it holds the residual when ``residual_connection=True``); see docs/sites.md.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from ..errors import UsageError
from ..run.context import TEXT
from ..site import Site
from .blocks import Place
from .text import text_places
from .transformer import transformer_places
from .unet import unet_places

_RESOLVERS = {"unet": unet_places, "transformer": transformer_places, TEXT: text_places}


def resolve(components: Mapping[str, nn.Module]) -> dict[Site, Place]:
    """Return every site of a pipeline's components, in network order: text encoders first.

    Raises:
        ValueError: for a denoiser whose blocks are not known, and for two places of one name.
    """
    found: dict[Site, Place] = {}
    for name in sorted(components, key=lambda name: not name.startswith(TEXT)):
        kind = TEXT if name.startswith(TEXT) else name
        for site, place in _places(kind, name, components[name]) if kind in _RESOLVERS else ():
            if site in found:
                raise UsageError(
                    f"{found[site].path} and {place.path} of {name} are both called {site}; tell them apart "
                    "in the adapter's _resolve() (docs/adapters.md)"
                )
            found[site] = place
    return found


def _places(kind: str, name: str, module: nn.Module) -> list[tuple[Site, Place]]:
    try:
        found = list(_RESOLVERS[kind](name, module))
        known = kind == TEXT or any(_inside(site) for site, _ in found)
        unknown = "" if known else "it has no such blocks"
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        found, unknown = [], str(error)
    if unknown:
        raise UsageError(
            f"the sites of {name}, a {type(module).__name__}, are not at the names that are known "
            f"({unknown}); say where they are in the adapter's _resolve() (docs/adapters.md)"
        )
    return found


def _inside(site: Site) -> bool:
    return site.block not in ("in", "out", "temb")
