"""A trace as a labelled dataset, and as a zarr store on disk (arrays and JSON, never pickle)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import xarray as xr
import zarr
from torch import Tensor

from ..models.run.levels import Step
from ..models.site import Site
from ..models.store.disk import new_folder
from ..models.store.sealed import seal, unseal
from ..models.text.prompt import Prompt, Words
from .guiding import log_file
from .stored import DIMENSIONS, StoredArray, as_array, dimensions, variable

KIND = "trace"
_LATENT_AXES = {1: ("channel",), 2: ("token", "channel"), 3: ("channel", "height", "width")}
_NUMBER = float | str  # JSON has no infinity
_WORDS = {"text": str, "tokens": [str], "spans": [(int, int)], "unknown": [int]}
_ARRAY = {"shape": [int], "dtype": str}
SCHEMA = {
    "sites": {str: _ARRAY},
    "order": [str],
    "axes": {str: [str]},
    "latents": _ARRAY,
    "steps": [{"index": int, "t": _NUMBER, "sigma": _NUMBER}],
    "kept_steps": [int],
    "samples?": [int],
    "guidance?": log_file.SCHEMA,
    "seeds": [int],
    "prompts": [
        {
            **_WORDS,
            "read": {str: _WORDS},
            "sizes": {str: (int, int)},
            "clip_skip": int | None,
            "tensors": {str: _ARRAY},
        }
    ],
    "about": {str: object},
}


def trace_to_xarray(trace: Any) -> xr.Dataset:
    """Return one variable for each site with dims (step, sample, ...), plus ``latents`` (sample, ...).

    Names and attributes are such that NetCDF and zarr carry them: ``unet__mid.attn.0.0__mlp.out`` is the site
    ``unet/mid.attn.0.0/mlp.out``, which is also its attribute ``site``.
    """
    dims = dimensions({s: trace[s].shape for s in trace}, trace.axes, len(_kept(trace)))
    sites = {variable(s): (dims[s], as_array(trace[s]), {"site": str(s)}) for s in trace}
    return _base(trace).assign(sites)


def _kept(trace: Any) -> list[int]:
    """Which samples of the run the rows of its arrays are."""
    if trace.samples is not None:
        return list(trace.samples)
    rows = [trace.acts[s].shape[not s.component.startswith("text_encoder")] for s in trace]
    return list(range(len(trace.latents) or max(rows, default=0)))


def _base(trace: Any) -> xr.Dataset:
    """All but the sites: latents, coordinates, provenance."""
    rows, latents, data = _kept(trace), trace.latents, {}
    coords: dict[str, Any] = {"sample": rows}
    last = max(rows, default=-1)
    if len(trace.seeds) > last:
        coords["seed"] = ("sample", [int(trace.seeds[r]) for r in rows])
    if len(trace.prompts) > last:
        coords["prompt"] = ("sample", [trace.prompts[r].text for r in rows])
    if any(not s.component.startswith("text_encoder") for s in trace):
        coords["step"] = [s.index for s in trace.kept_steps]
        coords["sigma"] = ("step", [s.sigma for s in trace.kept_steps])
    if len(latents) > last:
        axes = _LATENT_AXES.get(latents.ndim - 1, [f"axis{i}" for i in range(1, latents.ndim)])
        data["latents"] = (("sample", *(f"latent_{a}" for a in axes)), as_array(latents[rows]))
    told = {k: v for k, v in trace.about.items() if isinstance(v, str | int | float)}
    flat = {k: str(v) if isinstance(v, bool) else v for k, v in told.items()}
    return xr.Dataset(data, coords=coords, attrs=flat)


def save_trace(trace: Any, path: Path) -> None:
    """Write a trace to a new folder; it appears under its name only when it is whole.

    Raises:
        FileExistsError: if the folder is there already.
    """
    with new_folder(path) as part:
        group = zarr.open_group(str(part), mode="w", zarr_format=2)
        for site in trace:
            array = as_array(trace[site])
            chunks = array.shape if site.component.startswith("text_encoder") else (1, *array.shape[1:])
            group.create_array(variable(site), data=array, chunks=chunks, fill_value=None)
        finish(trace, part)


def finish(trace: Any, folder: Path) -> None:
    """Write what is told of a trace into the folder that holds its sites' arrays, and the manifest last."""
    shapes = {s: trace.acts[s].shape for s in trace}
    dims = dimensions(shapes, trace.axes, len(_kept(trace)))
    group: Any = zarr.open_group(str(folder), mode="a", zarr_format=2)
    for site in trace:
        group[variable(site)].attrs.update({DIMENSIONS: list(dims[site]), "site": str(site)})
    _base(trace).to_zarr(folder, mode="a", zarr_format=2, consolidated=False)
    if _kept(trace) != list(range(len(trace.latents))):  # the dataset is about the samples that were kept
        _write(group, "all_latents", trace.latents)
    prompts = group.create_group("prompts")
    for i, prompt in enumerate(trace.prompts):
        for name, tensor in _tensors(prompt).items():
            _write(prompts, f"{i}.{name}", tensor)
    if trace.guidance is not None:
        log = group.create_group("guidance")
        for name, tensor in log_file.log_tensors(trace.guidance).items():
            _write(log, name, tensor)
    zarr.consolidate_metadata(str(folder), zarr_format=2)
    seal(folder, KIND, _told(trace, shapes))


def _write(group: Any, name: str, x: Tensor) -> None:
    axes = [f"{name}.{i}" for i in range(x.ndim)]
    group.create_array(name, data=as_array(x), fill_value=None, attributes={DIMENSIONS: axes})


def _tensors(prompt: Prompt) -> dict[str, Tensor]:
    named = {name: getattr(prompt, name) for name in ("embeds", "pooled", "mask")}
    return {name: tensor for name, tensor in named.items() if tensor is not None}


def _told(trace: Any, shapes: Mapping[Site, Any]) -> dict[str, Any]:
    return {
        "sites": {str(s): _array(shapes[s], trace.acts[s].dtype) for s in trace},
        "order": [str(s) for s in trace],
        "axes": {str(s): list(trace.axes[s]) for s in trace.axes},
        "latents": _array(trace.latents.shape, trace.latents.dtype),
        "steps": [{k: _number(v) for k, v in asdict(s).items()} for s in trace.steps],
        "kept_steps": [s.index for s in trace.kept_steps],
        **({} if trace.samples is None else {"samples": list(trace.samples)}),
        **({} if trace.guidance is None else {"guidance": log_file.log_told(trace.guidance)}),
        "seeds": [int(seed) for seed in trace.seeds],
        "prompts": [
            {
                **_words(p),
                "read": {k: _words(w) for k, w in p.read.items()},
                "sizes": dict(p.sizes),
                "clip_skip": p.clip_skip,
                "tensors": {name: _array(t.shape, t.dtype) for name, t in _tensors(p).items()},
            }
            for p in trace.prompts
        ],
        "about": dict(trace.about),
    }


def _array(shape: Any, dtype: torch.dtype) -> dict[str, Any]:
    return {"shape": [int(n) for n in shape], "dtype": str(dtype).removeprefix("torch.")}


def _number(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def load_trace(path: Path) -> dict[str, Any]:
    """Read what ``save_trace`` wrote: the fields of a Trace, activations left on disk until asked for.

    Raises:
        ValueError: if the folder holds no trace, or a damaged one.
    """
    home = unseal(path, KIND, SCHEMA)
    told = home.about

    def stored(name: str, array: Mapping[str, Any]) -> StoredArray:
        return StoredArray(home, name, tuple(array["shape"]), getattr(torch, array["dtype"]))

    steps = tuple(Step(s["index"], float(s["t"]), float(s["sigma"])) for s in told["steps"])
    tensors = [
        {name: stored(f"prompts/{i}.{name}", array).read() for name, array in p["tensors"].items()}
        for i, p in enumerate(told["prompts"])
    ]
    log = told.get("guidance")
    shape = {"shape": [len(log["steps"]), len(told["seeds"])], "dtype": "float32"} if log else {}
    latents = stored("all_latents" if "all_latents" in home.arrays else "latents", told["latents"])
    return {
        "acts": {Site(s): stored(variable(s), told["sites"][s]) for s in told["order"]},
        "axes": {Site(s): tuple(axes) for s, axes in told["axes"].items()},
        "kept_steps": tuple(s for s in steps if s.index in told["kept_steps"]),
        "steps": steps,
        "samples": tuple(told["samples"]) if "samples" in told else None,
        "prompts": tuple(map(_prompt, tensors, told["prompts"])),
        "seeds": tuple(told["seeds"]),
        "latents": latents.read(),
        "guidance": log and log_file.log_of(log, lambda n: stored(f"guidance/{n}", shape).read(), steps),
        "about": told["about"],
    }


def _words(words: Words) -> dict[str, Any]:
    return {
        "text": words.text,
        "tokens": list(words.tokens),
        "spans": list(words.spans),
        "unknown": list(words.unknown),
    }


def _prompt(tensors: Mapping[str, Any], kept: Mapping[str, Any]) -> Prompt:
    def words(w: Mapping[str, Any]) -> dict[str, Any]:
        spans = tuple((a, b) for a, b in w["spans"])
        return {**w, "tokens": tuple(w["tokens"]), "spans": spans, "unknown": tuple(w["unknown"])}

    own = {name: kept[name] for name in _WORDS}
    read = {k: Words(**words(w)) for k, w in kept["read"].items()}
    sizes = {k: (a, b) for k, (a, b) in kept["sizes"].items()}
    return Prompt(**words(own), read=read, sizes=sizes, clip_skip=kept["clip_skip"], **tensors)
