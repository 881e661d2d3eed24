"""A trace as a labelled dataset, and back."""

from __future__ import annotations

from typing import Any

import xarray as xr

from ..models.site import Site


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
