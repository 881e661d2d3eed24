"""How a trace shows itself in a notebook."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..models.html import MOST_PICTURES, panel, pictures, table

if TYPE_CHECKING:
    from .trace import Trace

_CHEAP = 4096  # numbers in the latents of one sample that are decoded on a CPU just to be shown


def trace_html(trace: Trace) -> str:
    """Return the first pictures of a trace, its prompts and seeds, and its sites with shapes and sizes."""
    names = [f"{p.text!r}, seed {s}" for p, s in zip(trace.prompts, trace.seeds, strict=True)]
    sites = [
        (site, " x ".join(map(str, value.shape)), f"{value.nbytes / 1e6:.2f}")
        for site, value in trace.acts.items()
    ]
    images = _images(trace)
    return panel(
        repr(trace),
        "" if images is None else pictures(images, names),
        table(("prompt", "seed"), [(p.text, s) for p, s in zip(trace.prompts, trace.seeds, strict=True)]),
        table(("site", "shape", "MB"), sites) if sites else "",
    )


def _images(trace: Trace) -> Tensor | None:
    """The first pictures, if they are known or cheap to decode."""
    images: Tensor | None = vars(trace).get("images")
    if images is None:
        latents = trace.latents[:MOST_PICTURES]
        if latents[0].numel() > _CHEAP and not latents.is_cuda:
            return None
        try:
            with torch.no_grad():
                images = trace._decode(latents)
        except ValueError:  # it was loaded without its model
            return None
    return images if images.ndim == 4 and images.shape[1] in (1, 3) else None
