"""Full-size models without weights: real configurations on torch's meta device, to plan what to watch.

Shapes, bytes and parameter counts are exact, but for the length of an instruction that a text encoder reads
before the prompt: the tokenizers are tiny ones. Nothing is computed and nothing is downloaded.
"""

from __future__ import annotations

import pandas as pd
import torch

from ..base import Model
from ..errors import NotFoundError
from ..load import opened
from ..sites import site_shapes
from ..suggest import near
from .published import PUBLISHED


def full_size(name: str) -> Model:
    """Open a model of a real one's configuration, on the meta device.

    Args:
        name: one of ``PUBLISHED``.

    Raises:
        LookupError: for another name; it names near misses.

    >>> len(full_size("sd-1.5").sites("unet/**/cross_attn.out"))
    16
    """
    if name not in PUBLISHED:
        raise NotFoundError(f"there is no configuration {name!r}; {near(name, PUBLISHED)}")
    with torch.device("meta"):
        pipe = PUBLISHED[name]()
        model = opened(pipe)
    pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)  # noise levels have values
    model.name = name
    return model


def costs(model: Model, bytes_per_number: int = 2) -> pd.DataFrame:
    """Return a table of all sites: shape, and megabytes of one sample at one step.

    Args:
        model: an opened model, also one of ``full_size``.
        bytes_per_number: 2 is half precision.
    """
    shapes = site_shapes(model)
    rows = [
        (str(s), s.component, s.kind, shape, torch.Size(shape).numel() * bytes_per_number / 1e6)
        for s, shape in shapes.items()
    ]
    return pd.DataFrame(rows, columns=["site", "component", "kind", "shape", "megabytes"]).set_index("site")
