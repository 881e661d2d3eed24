"""What a network computes in and where, and whether weights are finite, however they are stored."""

from __future__ import annotations

from itertools import chain

import torch
from torch import Tensor, nn


def compute_dtype(module: nn.Module) -> torch.dtype:
    """Return the number format that a network computes in.

    Weights may be stored in another: float8 by layerwise casting, integers when quantised.
    """
    own = getattr(module, "dtype", None)  # diffusers and transformers know
    if isinstance(own, torch.dtype) and own.is_floating_point:
        return own
    floats = (t.dtype for t in chain(module.parameters(), module.buffers()) if t.is_floating_point())
    return next(floats, torch.float32)


def compute_device(module: nn.Module) -> torch.device:
    """Return where a network computes; with accelerate's offloading its weights may rest elsewhere."""
    offloaded = getattr(getattr(module, "_hf_hook", None), "execution_device", None)
    return torch.device(offloaded) if offloaded else next(module.parameters()).device


def is_finite(tensor: Tensor) -> bool:
    """Return whether no value is NaN or infinite; True for integers, which quantised weights are made of.

    float8 is looked at in float32, as torch has no sums of it.
    """
    if not tensor.is_floating_point():
        return True
    values = tensor.detach()
    if values.itemsize == 1:
        values = values.float()
    return bool(values.sum(dtype=torch.promote_types(values.dtype, torch.float32)).isfinite())
