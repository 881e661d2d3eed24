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
    if offloaded:
        return torch.device(offloaded)
    first = next(chain(module.parameters(), module.buffers()), None)
    return torch.device("cpu") if first is None else first.device  # one without weights is anywhere


def is_quantised(tensor: Tensor) -> bool:
    """Return whether a weight is kept as integers, or as a tensor of a class of its own (torchao, quanto)."""
    own = type(tensor) not in (Tensor, nn.Parameter)
    return own or hasattr(tensor, "quant_state") or not (tensor.is_floating_point() or tensor.is_complex())


def is_finite(tensor: Tensor) -> bool:
    """Return whether no value is NaN or infinite; True for quantised weights, which are not summed.

    float8 is looked at in float32, as torch has no sums of it.
    """
    if is_quantised(tensor):
        return True
    values = tensor.detach()
    if values.itemsize == 1:
        values = values.float()
    return bool(values.sum(dtype=torch.promote_types(values.dtype, torch.float32)).isfinite())
