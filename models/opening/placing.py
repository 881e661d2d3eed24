"""Where a model shall compute and in which number format, by name."""

from __future__ import annotations

from typing import Any

import torch

from ..errors import UsageError
from ..suggest import near

FORMATS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
"""Formats that weights may be opened in, by name."""


def placing(device: str = "cpu", dtype: str = "float32") -> dict[str, Any]:
    """Return the arguments of ``load`` for a device and a number format; none for its own defaults.

    Args:
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``.
        dtype: a key of ``FORMATS``.

    Raises:
        ValueError: for an unknown format, or a device that this machine does not have.

    >>> placing("cpu", "float16")
    {'dtype': torch.float16}
    """
    if dtype not in FORMATS:
        raise UsageError(f"dtype is {dtype!r}; {near(dtype, FORMATS)}")
    check_device(device)
    chosen = {"device": device, "dtype": FORMATS[dtype]}
    usual = {"device": "cpu", "dtype": torch.float32}
    return {name: value for name, value in chosen.items() if value != usual[name]}


def has_bfloat16() -> bool:
    """Whether the CPU multiplies in bfloat16; one that does not takes far longer than in float32."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def check_device(device: str) -> None:
    """Raise ValueError for a device that there is not, or that this machine does not have."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch is built without it, too
        reason = str(error).splitlines()[0]
        raise UsageError(f"device {device!r} cannot be used here ({reason}); 'cpu' can") from error
