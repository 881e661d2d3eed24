"""Arrays as bytes of safetensors that keep how they lay in memory."""

from __future__ import annotations

from collections.abc import Mapping

from safetensors.torch import load, save
from torch import Tensor


def packed(tensors: Mapping[str, Tensor]) -> bytes:
    """Arrays as bytes, the order of their axes in memory included: sums in another order differ in a bit."""
    laid: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        t = tensor.detach().cpu().clone()  # dense
        strides = t.stride()
        order = sorted(range(t.ndim), key=lambda axis: -strides[axis])
        t = t.permute(order).contiguous()
        laid["|".join((name, *map(str, order)))] = t
    return save(laid)


def unpacked(data: bytes) -> dict[str, Tensor]:
    """Return the arrays of ``packed``.

    Raises:
        SafetensorError: if they are truncated or something else.
    """
    found: dict[str, Tensor] = {}
    for laid, tensor in load(data).items():
        name, *order = laid.split("|")
        back = [order.index(str(axis)) for axis in range(tensor.ndim)]
        found[name] = tensor.clone().permute(back)  # clone: aligned in memory, as what was computed
    return found
