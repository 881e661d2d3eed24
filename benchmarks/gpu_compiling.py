"""Compiled parts beside hooks, for ``gpu.py``: what is compiled holds no watched site, and hooks act outside.

``torch.compile`` of a module's ``forward`` leaves the hooks of that module, and those of all modules around
it, outside of the compiled code; a hook inside would be skipped, and denoscope refuses it by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from gpu_timing import Found, crossing, plain, spread, took, traced
from torch import nn

import denoscope
from denoscope.models.errors import StateError

COMPILER: dict[str, Any] = {"backend": "inductor"}
BLOCKS = (
    "BasicTransformerBlock",
    "JointTransformerBlock",
    "FluxTransformerBlock",
    "FluxSingleTransformerBlock",
)
INSIDE = ("Attention", "FluxAttention", "FeedForward")
"""Classes that are compiled where nothing inside is watched: whole blocks, else what is in them."""
GRAPHS = 64
"""For how many shapes torch may compile one function before it gives up; its default is 8."""
SITES = 16


def compiling(model: denoscope.Model, seconds: float) -> Found:  # noqa: ARG001  # nothing stops a compiler
    """Sampling and tracing with all compiled that holds no watched site."""
    sites = spread(crossing(model), SITES)
    before = plain(model)
    found: Found = {"sites": len(sites), "eager": took(model, lambda: plain(model)).seconds}
    with compiled(model, sites) as parts:
        found |= {"parts": len(parts), "until": took(model, lambda: plain(model)).seconds}
        after = took(model, lambda: plain(model))
        traced(model, sites)  # weights are hashed once
        seen = took(model, lambda: traced(model, sites).latents)
        found |= {"compiled": after.seconds, "traced": seen.seconds, "peak": after.peak}
        found |= {"equal": torch.equal(seen.made, after.made)}
        found |= {"apart": float((after.made - before).float().norm() / before.float().norm())}
        counts = torch._dynamo.utils.counters
        found |= {"graphs": counts["stats"]["unique_graphs"], "breaks": sum(counts["graph_break"].values())}
        found |= {"refused": refused(model, parts)}
    return found


@contextmanager
def compiled(model: denoscope.Model, sites: Sequence[denoscope.Site]) -> Iterator[list[nn.Module]]:
    """Compile the ``forward`` of all blocks, attention and MLPs in which nothing is watched, for a while."""
    import torch._dynamo.utils  # noqa: PLC0415  # takes seconds

    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    parts = around(model.denoiser, {model.module(site) for site in sites})
    try:
        with torch._dynamo.config.patch(recompile_limit=GRAPHS):
            for part in parts:
                part.forward = torch.compile(part.forward, **COMPILER)
            yield parts
    finally:
        for part in parts:
            vars(part).pop("forward", None)
        torch._dynamo.reset()


def around(network: nn.Module, watched: set[nn.Module]) -> list[nn.Module]:
    """The largest parts of a network, of the classes that are compiled, that hold none of some modules."""
    if type(network).__name__ in (*BLOCKS, *INSIDE) and not watched & set(network.modules()):
        return [network]
    return [part for child in network.children() for part in around(child, watched)]


def refused(model: denoscope.Model, parts: Sequence[nn.Module]) -> bool:
    """Whether a site inside of what was compiled is refused."""
    inside = {m for part in parts for m in part.modules()} - set(parts)
    site = next(s for s, place in model.places().items() if place.module in inside)
    try:
        traced(model, [site], 1)
    except StateError:
        return True
    return False
