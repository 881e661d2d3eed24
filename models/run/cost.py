"""What one row of a denoiser takes: operations, and bytes. Counted, not timed; also without weights."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from .context import Call
from .levels import Step

if TYPE_CHECKING:
    from ..adapter import Adapter


@dataclass(frozen=True)
class RowCost:
    """What one row of a denoiser takes.

    Args:
        flops: of its products (matrices, convolutions, attention); a multiplication and an addition are two.
        live: most bytes that are alive at a time beside the weights, with attention in one kernel; more rows
            take as much each.
        weights: bytes of all components' weights.
    """

    flops: int
    live: int
    weights: int

    def peak(self, rows: int) -> int:
        """Return the bytes of weights and so many rows; allocators and kernels take somewhat more."""
        return self.weights + rows * self.live


def row_cost(model: Adapter) -> RowCost:
    """Count what one row takes; the denoiser is called once, with one row."""
    somewhen = Step(0, 500.0, 1.0)  # no scheduler is asked, so models without weights do as well
    call = Call(model.input_site.component, {"cond": slice(0, 1)}, (somewhen,))
    counter, alive, attention = FlopCounterMode(display=False), _Alive(model), _Attention()
    with torch.no_grad(), model.live.suspending():
        prompts, noise = model.encode([""]), model.noise([0])
        with model.calling(call), counter, alive, attention:
            model.predict(noise, somewhen, prompts)
    weights = {p.data_ptr() or id(p): p.nbytes for c in model.components.values() for p in c.parameters()}
    return RowCost(counter.get_total_flops() + attention.flops, alive.most, sum(weights.values()))


class _Attention(TorchFunctionMode):
    """Stands in for the fused kernel, which keeps no probabilities: counts, and makes the output's shape."""

    flops = 0

    def __torch_function__(self, func: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        named = dict(zip(("query", "key", "value"), args, strict=False)) | (kwargs or {})
        q, k, v = (named[name] for name in ("query", "key", "value"))
        self.flops += 2 * q[..., 0].numel() * k.shape[-2] * (q.shape[-1] + v.shape[-1])
        return q.new_zeros((*q.shape[:-1], v.shape[-1]))


class _Alive(TorchDispatchMode):
    """Adds up the bytes of what is made while it is on, until it is let go; views of weights are not made."""

    def __init__(self, model: Adapter) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's own says nothing
        self.now = self.most = 0
        modules = (m for component in model.components.values() for m in component.modules())
        tensors = (t for m in modules for t in (*m._parameters.values(), *m._buffers.values()))
        self.seen = weakref.WeakSet[Any](t.untyped_storage() for t in tensors if t is not None)

    def __torch_dispatch__(self, func: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for x in tree_leaves(made):
            if isinstance(x, torch.Tensor) and (store := x.untyped_storage()) not in self.seen:
                self.seen.add(store)
                self._add(store.nbytes())
                weakref.finalize(store, self._add, -store.nbytes())
        return made

    def _add(self, n: int) -> None:
        self.now += n
        self.most = max(self.most, self.now)
