"""Where a network is cut in two: all that passes from one block on, open skip connections included.

A patched output of a UNet's block alone leaves the skips clean, and early blocks then seem to carry little.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ...models.base import Model
from ...models.errors import UsageError
from ...models.run.context import TEXT
from ...models.site import Site

Cuts = Mapping[str, Sequence[Site]]
"""By name, "unet/up.1" or "text_encoder/layer.0": the sites that are patched together."""


def text_cuts(model: Model) -> dict[str, list[Site]]:
    """Return a cut behind each layer of each text encoder that the denoiser reads."""
    read, found = model.layers_read(), dict[str, list[Site]]()
    for site in model.places():
        group, _, layer = site.block.partition(".")
        if not site.component.startswith(TEXT) or group != "layer" or site.kind != "resid.post":
            continue
        if int(layer) < read.get(site.component, int(layer) + 1):
            found[f"{site.component}/{site.block}"] = [site]
    return found


def denoiser_cuts(model: Model) -> dict[str, list[Site]]:
    """Return a cut behind each block of the denoiser.

    Raises:
        UsageError: for a network without such blocks.
    """
    part = model.input_site.component
    own = [site for site in model.places() if site.component == part]
    found = _unet_cuts(own) if part == "unet" else _block_cuts(own)
    if not found:
        raise UsageError(f"the {part} of {model.name} has no blocks that are known, so it cannot be cut")
    return found


def _block_cuts(own: Sequence[Site]) -> dict[str, list[Site]]:
    """Of a transformer: what each block hands on, both streams where there are two."""
    found: dict[str, list[Site]] = {}
    for site in own:
        if re.fullmatch(r"(block|single)\.\d+", site.block) and site.kind == "resid.post":
            found.setdefault(f"{site.component}/{site.block}", []).append(site)
    return found


def _unet_cuts(own: Sequence[Site]) -> dict[str, list[Site]]:
    """Of a UNet: the output of each block, and all skips that are made by then and not yet used."""
    layers: dict[str, list[Site]] = {}
    for site in own:
        block = re.fullmatch(
            r"((?:down|up)\.\d+|mid|in)(?:\.(res|attn)\.(\d+)|\.(?:down|up)sample)?", site.block
        )
        if block and site.kind in ("resid.post", "out", "conv.out"):
            made, place = layers.setdefault(block[1], []), block[3]
            attends = block[2] == "attn" and block[1] != "mid" and made
            if attends and made[-1].block == f"{block[1]}.res.{place}":
                made.pop()  # the layer ends with its attention
            made.append(site)
    used = {b: sum(s.kind == "resid.post" for s in sites) for b, sites in layers.items()}
    found, skips = {}, list[Site]()
    for name, sites in layers.items():
        if name.startswith("up"):
            skips = skips[: len(skips) - used[name]]
            found[name] = [*skips, sites[-1]]
        elif name == "mid":
            found[name] = [*skips, sites[-1]]
        else:
            skips = [*skips, *sites]
            found[name] = list(skips)
    return {f"{own[0].component}/{name}": sites for name, sites in found.items()}
