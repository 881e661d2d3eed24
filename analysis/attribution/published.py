"""Which layers published code reads maps from, by name."""

from __future__ import annotations

from ...models.base import Model
from ...models.errors import UsageError
from ...models.site import Site

COARSE = 8
"""DAAM's code leaves out layers whose side is this part of the latents'."""


def daam_layers(model: Model) -> list[Site]:
    """Return the attentions that DAAM's code reads: up and down blocks, without the middle and the coarsest.

    Raises:
        ValueError: for a model that has no UNet, which that code does not know, and where nothing is left.
    """
    sites = model.reading_sites()
    if sites[0].component != "unet":
        raise UsageError(
            f"settings='code' are those of DAAM's code, which reads UNets; {model.name} has a "
            f"{sites[0].component}. Leave settings out"
        )
    height, width = model.picture_grid
    kept = [s for s in sites if not s.block.startswith("mid") and not _is_coarse(model, s, height, width)]
    if not kept:
        raise UsageError(f"DAAM's code would read no layer of {model.name}; leave settings out")
    return kept


def _is_coarse(model: Model, site: Site, height: int, width: int) -> bool:
    y, x = model.layout(site).grid or (height, width)
    return height >= COARSE * y and width >= COARSE * x
