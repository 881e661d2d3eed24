"""Attributions to elements, gathered: by word, by place of the picture, by step and channel of a site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from .scalars import Moment
from .targets import Activations

Found: TypeAlias = dict[str, Any]
"""What is found of one prompt and seed, by name."""


def _reduced(x: Tensor, over: Sequence[int], method: str) -> Tensor:
    """Sum over some axes; of plain gradients the length."""
    if not over:
        return x
    return torch.linalg.vector_norm(x, dim=tuple(over)) if method == "gradient" else x.sum(tuple(over))


def of_words(values: Tensor, players: Mapping[str, Sequence[int]], method: str) -> Found:
    """From [1, token, channel] to a number for each word."""
    rows = values[0].double()
    return {"words": {name: float(_reduced(rows[list(at)], (0, 1), method)) for name, at in players.items()}}


def of_latents(values: Tensor, moment: Moment, method: str) -> Found:
    """From [1, channel, height, width], or packed [1, token, channel], to a map; and the picture."""
    model, x = moment.model, values[0].double()
    grid: Any = getattr(model, "token_grid", None)
    made = _reduced(x, (0,), method) if x.ndim == 3 else _reduced(x, (1,), method).unflatten(0, grid)
    with torch.no_grad():
        outcome = moment.outcome([moment.prompt], moment.latents)
        return {"map": made.cpu().numpy(), "image": outcome.images[0].float().cpu().numpy()}


def of_site(values: Tensor, there: Activations, method: str) -> Found:
    """From [1, step, ...] to a number for each step, each channel, each place, where there are such."""
    layout = there.moment.model.layout(there.site)
    axes, x = ("step", *layout.axes), values[0].double()
    found: Found = {"steps": list(there.steps), "values": _kept(x, axes, ("step",), method)}
    if "channel" in axes:
        found["channels"] = _kept(x, axes, ("step", "channel"), method)
    if "height" in axes:
        found["places"] = _kept(x, axes, ("step", "height", "width"), method)
    elif layout.grid and layout.token_axis and layout.picture:
        along = axes[layout.token_axis]
        flat = _kept(x, axes, ("step", along), method)[:, layout.picture]
        found["places"] = flat.reshape(len(flat), *layout.grid)
    return found


def _kept(x: Tensor, axes: Sequence[str], kept: Sequence[str], method: str) -> Any:
    return _reduced(x, [i for i, axis in enumerate(axes) if axis not in kept], method).cpu().numpy()


def labelled(
    found: Sequence[Found], prompts: Sequence[str], seeds: Sequence[int], about: Mapping[str, Any]
) -> xr.Dataset:
    """Return what was found of each prompt with each seed as labelled arrays, as Attribution has them."""
    shape = (len(prompts), len(seeds))
    coords: dict[str, Any] = {"prompt": list(prompts), "seed": list(seeds)}
    if "sites" in found[0]:
        return _sites(found, shape, coords, about)
    runs = ("prompt", "seed")
    data: dict[str, Any] = {
        k: (runs, np.reshape([f[k] for f in found], shape)) for k in ("score", "reference")
    }  # fmt: skip
    if "map" in found[0]:
        for name, key, axes in (
            ("values", "map", ("y", "x")), ("images", "image", ("channel", "height", "width"))
        ):  # fmt: skip
            stacked = np.stack([f[key] for f in found])
            data[name] = ((*runs, *axes), stacked.reshape(*shape, *stacked.shape[1:]))
        return xr.Dataset(data, coords, dict(about))
    words = list(dict.fromkeys(w for f in found for w in f["words"]))
    values = np.array([[f["words"].get(w, np.nan) for f in found] for w in words])
    data["values"] = (("word", *runs), values.reshape(len(words), *shape))
    return xr.Dataset(data, {**coords, "word": words}, dict(about))


def _sites(
    found: Sequence[Found], shape: tuple[int, int], coords: dict[str, Any], about: Mapping[str, Any]
) -> xr.Dataset:
    parts, runs = [f["sites"] for f in found], ("prompt", "seed")
    names, first = about["sites"], parts[0]

    def stacked(key: str, *axes: str) -> tuple[tuple[str, ...], Any]:
        """[run, site, ...] of each to [site, ..., prompt, seed, ...]."""
        x = np.array([[site[key] for site in sites] for sites in parts])
        return ("site", *runs, *axes), np.moveaxis(x, 1, 0).reshape(len(first), *shape, *x.shape[2:])

    data = {"reference": stacked("reference"), "values": stacked("values", "step")}
    data["score"] = (runs, stacked("score")[1][0])
    if len(first) == 1:
        for key, axes in (("channels", ("step", "channel")), ("places", ("step", "y", "x"))):
            if key in first[0]:
                dims, x = stacked(key, *axes)
                data[key] = (dims[1:], x[0])
    made = xr.Dataset(data, {**coords, "site": names, "step": first[0]["steps"]}, dict(about))
    return made.transpose("site", "step", "prompt", "seed", ...)
