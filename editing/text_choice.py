"""Which of the layers that read text a closed form changes."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Literal

from ..models.base import Model
from ..models.errors import NotFoundError, UsageError
from ..models.site import Site
from ..probes.text_layers import POOLED, TOKENS, TextLayer
from ..probes.trace import expand

Projections = Literal["kv", "v"]
Weights = str | Site | Sequence[str | Site] | None


def chosen(
    model: Model, layers: Sequence[TextLayer], weights: Weights, projections: Projections
) -> tuple[list[TextLayer], list[str]]:
    """Return the layers to change, and which of what the denoiser reads they leave as it is.

    Args:
        model: whose layers they are.
        layers: all that read text alone.
        weights: sites or patterns of sites, ``unet/up.*/cross_attn.out``: the keys and values of those
            blocks, or of ``v_proj`` those alone; or patterns of the weights' full names. None is all keys and
            values; in a family that has none of text alone, the layers that read its tokens first; and
            always those that read its pooled vector.
        projections: keys and values, or values alone.

    Raises:
        LookupError: if nothing is chosen; the message lists what there is.
    """
    if not layers:
        raise UsageError(
            f"no linear layer of {model.name} reads the text alone in a form that can be edited; if it is "
            "quantised, open it without quantisation, edit it, and quantise afterwards"
        )
    attending = [x for x in layers if _projection(x)]
    first = attending or [x for x in layers if x.space == TOKENS]
    usual = [x for x in first if projections == "kv" or _projection(x) in {"v", ""}]
    usual += [x for x in layers if x.space == POOLED]
    found = usual if weights is None else _matching(model, layers, weights, projections)
    spaces = dict.fromkeys(x.space for x in usual)
    return found, [s for s in spaces if s not in {x.space for x in found}]


def _matching(
    model: Model, layers: Sequence[TextLayer], weights: str | Site | Sequence[str | Site], projections: str
) -> list[TextLayer]:
    found: dict[str, TextLayer] = {}
    for pattern in [weights] if isinstance(weights, (str, Site)) else weights:
        some = (
            _at_sites(model, layers, pattern, projections)
            if "/" in str(pattern)
            else [x for x in layers if fnmatchcase(x.weight, str(pattern))]
        )
        if not some:
            names = ", ".join(x.weight for x in layers[:4])
            raise NotFoundError(
                f"{str(pattern)!r} names no layer of {model.name} that reads the text alone; there are "
                f"{len(layers)}: {names}{' ...' if len(layers) > 4 else ''}"
            )
        found |= {x.weight: x for x in some}
    return [x for x in layers if x.weight in found]


def _at_sites(
    model: Model, layers: Sequence[TextLayer], pattern: str | Site, projections: str
) -> list[TextLayer]:
    """The layers in the blocks of some sites."""
    sites = expand(model, pattern)
    places = model.places()
    homes = {
        f"{s.component}.{p.path}.weight": s
        for s, p in places.items()
        if s.kind.endswith(("k_proj", "v_proj"))
    }
    blocks = {(s.component, s.block) for s in sites if not s.kind.endswith("_proj")}
    exact = {s for s in sites if s.kind.endswith("_proj")}
    found = []
    for layer in layers:
        home = homes.get(layer.weight)
        if home is None:
            continue
        inside = (home.component, home.block) in blocks and (projections == "kv" or _projection(layer) == "v")
        if inside or home in exact:
            found.append(layer)
    return found


def _projection(layer: TextLayer) -> str:
    """Return "k" or "v" for a projection of attention, else nothing."""
    name = layer.weight.split(".")[-2]
    return name[-1] if name in {"to_k", "to_v"} else ""
