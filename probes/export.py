"""A trace as a labelled dataset, and as a zarr store on disk (arrays and JSON, never pickle)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import xarray as xr
import zarr

from ..models.errors import UsageError
from ..models.run.levels import Step
from ..models.site import Site
from ..models.store.disk import new_folder
from ..models.text.prompt import Prompt, Words

_PROMPT_TENSORS = ("embeds", "pooled", "mask")


def trace_to_xarray(trace: Any) -> xr.Dataset:
    """Return one variable for each site with dims (step, sample, ...), plus ``latents`` (sample, ...)."""
    data = {str(site): (_dims(site, trace[site].ndim), trace[site].cpu().numpy()) for site in trace}
    latents = trace.latents
    data["latents"] = (("sample", *_axes("latents", latents.ndim - 1)), latents.cpu().numpy())
    coords: dict[str, Any] = {
        "sample": range(len(trace.seeds)),
        "seed": ("sample", list(trace.seeds)),
        "prompt": ("sample", [p.text for p in trace.prompts]),
    }
    if any("step" in dims for dims, _ in data.values()):
        coords["step"] = [s.index for s in trace.kept_steps]
        coords["sigma"] = ("step", [s.sigma for s in trace.kept_steps])
    flat = {k: v for k, v in trace.about.items() if isinstance(v, (str, int, float))}
    sizes = {len(v[1]) for v in data.values() if "sample" in v[0][:1]}
    if sizes - {len(trace.seeds)}:
        coords = {k: v for k, v in coords.items() if k in ("step", "sigma")}
    return xr.Dataset(data, coords=coords, attrs=flat)


def _dims(site: Site, ndim: int) -> tuple[str, ...]:
    lead = ("sample",) if site.component.startswith("text_encoder") else ("step", "sample")
    return (*lead, *_axes(str(site), ndim - len(lead)))


def _axes(name: str, n: int) -> list[str]:
    """Name the axes of one sample; sizes differ between sites, so each name carries its site."""
    known = {3: ("channel", "height", "width"), 2: ("token", "channel"), 1: ("channel",)}
    if name.endswith(".probs"):
        known[3] = ("head", "query", "key")
    elif name.endswith((".q", ".k", ".v", ".z")):
        known[3] = ("head", "token", "channel")
    return [f"{axis} of {name}" for axis in known.get(n, [f"axis{i}" for i in range(n)])]


def save_trace(trace: Any, path: Path) -> None:
    """Write a trace to a new folder; it appears under its name only when it is whole.

    Raises:
        FileExistsError: if the folder is there already.
    """
    with new_folder(path) as part:
        group = zarr.open_group(str(part), mode="w")
        _write(group, "latents", trace.latents)
        for site in trace:
            _write(group, f"sites/{site}", trace[site])
        for i, prompt in enumerate(trace.prompts):
            for name in _PROMPT_TENSORS:
                if (tensor := getattr(prompt, name)) is not None:
                    _write(group, f"prompts/{i}/{name}", tensor)
        group.attrs["denoscope trace"] = {
            "sites": [str(s) for s in trace],
            "steps": [asdict(s) for s in trace.steps],
            "kept_steps": [s.index for s in trace.kept_steps],
            "seeds": list(trace.seeds),
            "prompts": [
                {**_words(p), "read": {k: _words(w) for k, w in p.read.items()}} for p in trace.prompts
            ],
            "about": dict(trace.about),
        }


def load_trace(path: Path) -> dict[str, Any]:
    """Read what ``save_trace`` wrote: the fields of a Trace, activations left on disk until asked for.

    Raises:
        ValueError: if the folder holds no trace.
    """
    try:
        group = zarr.open_group(str(path), mode="r")
        about: Any = group.attrs["denoscope trace"]
    except (FileNotFoundError, KeyError, ValueError) as error:
        raise UsageError(f"{path} holds no trace; give a folder written by Trace.save()") from error
    prompts = tuple(_prompt(group, f"prompts/{i}", p) for i, p in enumerate(about["prompts"]))
    steps = tuple(Step(**s) for s in about["steps"])
    return {
        "acts": {Site(s): group[f"sites/{s}"] for s in about["sites"]},
        "kept_steps": tuple(steps[i] for i in about["kept_steps"]),
        "steps": steps,
        "prompts": prompts,
        "seeds": tuple(about["seeds"]),
        "latents": _read(group, "latents"),
        "about": about["about"],
    }


def _words(words: Words) -> dict[str, Any]:
    return {"text": words.text, "tokens": words.tokens, "spans": words.spans, "unknown": words.unknown}


def _prompt(group: Any, path: str, kept: Mapping[str, Any]) -> Prompt:
    def words(w: Mapping[str, Any]) -> dict[str, Any]:
        spans = tuple((a, b) for a, b in w["spans"])
        unknown = tuple(w.get("unknown", ()))  # not told by older versions
        return {"text": w["text"], "tokens": tuple(w["tokens"]), "spans": spans, "unknown": unknown}

    tensors: dict[str, Any] = {
        n: _read(group, f"{path}/{n}") for n in _PROMPT_TENSORS if f"{path}/{n}" in group
    }
    read = {k: Words(**words(w)) for k, w in kept["read"].items()}
    return Prompt(**words(kept), read=read, **tensors)


def _write(group: Any, name: str, x: torch.Tensor) -> None:
    x = (x.float() if x.dtype == torch.bfloat16 else x).detach().cpu()  # numpy has no bfloat16
    group.create_array(name, data=x.numpy())


def _read(group: Any, name: str) -> torch.Tensor:
    return torch.from_numpy(group[name][:])
