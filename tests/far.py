"""A second device on a machine that has none: tensors that say they are elsewhere, and refuse to mix.

What is ``far`` lies in main memory all the same, and computes there; but torch is told another device. A call
that mixes far and near tensors is refused, as on a GPU, but for single numbers. A table of Python's numbers
(``torch.tensor(values, device=...)``, ``x[[0, 2]]``) is refused as well: it would be copied in silence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

ATEN = torch.ops.aten
FAR = torch.device("lazy:0")  # of torch's devices one that needs nothing to be installed, and has no kernels
CROSS = (ATEN._to_copy.default, ATEN.copy_.default, ATEN._local_scalar_dense.default)


class Far(Tensor):
    """A tensor that says it is elsewhere; ``near`` holds its numbers."""

    near: Tensor

    @staticmethod
    def __new__(cls, near: Tensor) -> Far:
        """Stand for a tensor of main memory."""
        shape, strides = near.shape, near.stride()
        made: Far = Tensor._make_wrapper_subclass(
            cls, shape, strides, near.storage_offset(), dtype=near.dtype, device=FAR
        )
        made.near = near
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Nobody else computes with it."""
        raise RuntimeError(f"{func} outside the device's context")

    def tolist(self) -> Any:
        """Copy, and read."""
        return self.cpu().tolist()


class Device(TorchDispatchMode):
    """Computes for far tensors while it is on."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Compute where the numbers are; say where they are told to be."""
        given = dict(kwargs or {})
        tensors = [x for x in tree_leaves((args, given)) if isinstance(x, Tensor)]
        far = [x for x in tensors if isinstance(x, Far)]
        there = bool(far)
        if given.get("device") is not None:
            there, given["device"] = torch.device(given["device"]) == FAR, torch.device("cpu")
        near = [x for x in tensors if not isinstance(x, Far) and x.ndim]
        if far and near and func not in CROSS:
            raise RuntimeError(f"{func} of tensors on two devices: {[tuple(x.shape) for x in tensors]}")
        made = func(*tree_map(_near, args), **tree_map(_near, given))
        if func is ATEN.copy_.default:
            return args[0]
        own = {id(x.near): x for x in far}  # what was written in place stays the tensor that it was

        def told(x: Any) -> Any:
            if not (there and isinstance(x, Tensor)):
                return x
            return own[id(x)] if id(x) in own else Far(x)

        return tree_map(told, made)


def _near(x: Any) -> Any:
    return x.near if isinstance(x, Far) else x


def send(pipe: Any) -> None:
    """Put the weights of a pipeline there, for good."""
    networks = [m for m in pipe.components.values() if isinstance(m, nn.Module)]
    for module in (m for network in networks for m in network.modules()):
        for name, weight in module._parameters.items():
            if weight is not None:
                module._parameters[name] = nn.Parameter(Far(weight.detach()), requires_grad=False)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = Far(buffer)


@contextmanager
def far(pipe: Any) -> Iterator[None]:
    """Let a pipeline compute there while the context lasts."""
    with torch.no_grad(), Device():
        send(pipe)
        yield
