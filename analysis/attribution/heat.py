"""From attention probabilities to maps of words: the arithmetic of DAAM."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ...models.base import Prompt
from ...models.errors import UsageError
from ...models.run.levels import Step
from ...models.site import Site
from ...probes.trace import Trace

By: TypeAlias = Literal["all", "layer", "head"]
"""Whether maps are means over all heads of all layers, over the heads of each layer, or of each head."""


def find_all(
    prompts: Sequence[Prompt], words: Sequence[str] | None
) -> tuple[list[dict[str, list[int]]], list[int]]:
    """Return the tokens of each word in each prompt, and all of them."""
    found = [_find(p, words) for p in prompts]
    tokens = sorted({i for places in found for at in places.values() for i in at})
    if not tokens:
        raise UsageError(f"there are no words to map in the prompts {[p.text for p in prompts]}")
    return found, tokens


def _find(prompt: Prompt, words: Sequence[str] | None) -> dict[str, list[int]]:
    """Return the tokens of each word; those of one word in capitals and small letters together."""
    if words is not None:
        return {name: prompt.find(name) for name in words}
    names = dict.fromkeys(w.lower() for w in prompt.words)
    if lost := [name for name in names if not prompt.reads(name)]:
        warnings.warn(
            f"{lost} of the prompt {prompt.text!r} have no map: no token that the tokenizer knows stands for "
            "them",
            stacklevel=2,
        )
    return {name: prompt.find(name) for name in names if name not in lost}


def heat_of(
    layers: Sequence[Tensor], latent: tuple[int, int], size: tuple[int, int], probabilities: bool = True
) -> Tensor:
    """Return [sample, token, y, x]: resize, cut off negatives, average over heads of all layers.

    The cut comes before the average, head by head: the other order differs by some 5 %. What are no
    probabilities of tokens (scores, shares of concepts) is resized bilinearly and not cut.
    """
    total, heads = torch.zeros(()), 0
    for probs in layers:
        grid = _grid(probs.shape[2], latent)
        for head in probs.unbind(1):
            low = head.transpose(1, 2).reshape(len(head), -1, *grid)
            maps = F.interpolate(low, size, mode="bicubic" if probabilities else "bilinear")
            total, heads = (maps.clamp(min=0) if probabilities else maps) + total.to(maps), heads + 1
    return total / heads


def views_of(
    layers: Mapping[Site, Tensor],
    latent: tuple[int, int],
    size: tuple[int, int],
    by: By,
    probabilities: bool = True,
) -> Float[Tensor, "view sample token y x"]:
    """Return one map of all, one of each layer, or one of each head of each layer; NaN for heads it lacks."""
    if by == "all":
        return heat_of(list(layers.values()), latent, size, probabilities)[None]
    if by == "layer":
        return torch.stack([heat_of([x], latent, size, probabilities) for x in layers.values()])
    most = max(x.shape[1] for x in layers.values())
    views = []
    for x in layers.values():
        own = [heat_of([x[:, i : i + 1]], latent, size, probabilities) for i in range(x.shape[1])]
        views += own + [torch.full_like(own[0], float("nan"))] * (most - len(own))
    return torch.stack(views)


def check_by(by: str) -> None:
    """Raise ValueError for a view that there is not."""
    if by not in ("all", "layer", "head"):
        raise UsageError(f"by is {by!r}; it is 'all', 'layer' or 'head'")


def _grid(queries: int, latent: tuple[int, int]) -> tuple[int, int]:
    """Return height and width of a layer; each level of a UNet halves the latents, rounding up."""
    height, width = latent
    while height * width > queries:
        height, width = -(-height // 2), -(-width // 2)
    if height * width != queries:
        raise UsageError(f"{queries} queries are no halving of latents {latent}; give other sites")
    return height, width


def words_of(
    heat: Float[Tensor, "view sample token y x"], found: Sequence[Mapping[str, list[int]]], tokens: list[int]
) -> dict[str, Float[Tensor, "view sample y x"]]:
    """Return the map of each word: the mean over its tokens, NaN for samples that do not have it."""
    absent = torch.full_like(heat[:, 0, 0], float("nan"))

    def of(word: str, sample: int) -> Tensor:
        picked = [tokens.index(t) for t in found[sample].get(word, ())]
        return heat[:, sample, picked].mean(1) if picked else absent

    words = dict.fromkeys(w for places in found for w in places)
    return {w: torch.stack([of(w, i) for i in range(len(found))], 1) for w in words}


def label(
    values: Mapping[str, Tensor],
    rows: list[int],
    run: Trace,
    each: Sequence[Step] | None,
    views: tuple[By, Sequence[Site]] = ("all", ()),
) -> xr.DataArray:
    """Return maps [view, sample, y, x] by word as a labelled array.

    Args:
        values: of each word.
        rows: which samples of the run they are of.
        run: what they are of.
        each: where there is one map for each step, these; views are steps first, then layers and heads.
        views: what the other views are, and of which layers.
    """
    by, layers = views
    lead: dict[str, int] = {} if each is None else {"step": len(each)}
    if by != "all":
        lead["layer"] = len(layers)
    stacked = torch.stack(list(values.values()), 2)
    if by == "head":
        lead["head"] = len(stacked) // max(1, len(layers) * lead.get("step", 1))
    maps = xr.DataArray(
        stacked.reshape(*lead.values(), *stacked.shape[1:]).numpy(),
        dims=(*lead, "sample", "word", "y", "x"),
        coords={
            "sample": rows,
            "word": list(values),
            "prompt": ("sample", [run.prompts[r].text for r in rows]),
            **({"seed": ("sample", [run.seeds[r] for r in rows])} if run.seeds else {}),
            **({} if by == "all" else {"layer": [str(s) for s in layers]}),
        },
        name="word_maps",
    )
    if each is None:
        return maps
    return maps.assign_coords(step=[s.index for s in each], sigma=("step", [s.sigma for s in each]))
