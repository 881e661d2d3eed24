"""Inside attention: q, k, v, probabilities and per-head values of one fused attention call.

diffusers and transformers compute attention with ``scaled_dot_product_attention``. A tap is pushed just
before a wanted attention module runs and popped just after; it sees that call and nothing else. Reading
leaves the fused result untouched, so a traced image is bit-identical to an untraced one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from ..run.tables import indices

# Looks at a tensor (``x[rows]``, ``x.shape``) and returns (rows, new values of those rows), or None.
Handler = Callable[[Any], "tuple[slice | list[int], Tensor] | None"]
ATTENTION_KINDS = ("q", "k", "v", "probs", "z")


def attention_probs(
    q: Tensor, k: Tensor, mask: Tensor | None = None, causal: bool = False, scale: float | None = None
) -> Tensor:
    """Return softmax(q kᵀ · scale + mask), shape [sample, head, query, key]; Vaswani et al. 2017, eq. 1.

    Half precision is computed in float32 and rounded at the end, as fused kernels do: q kᵀ overflows float16.
    """
    wide = torch.promote_types(q.dtype, torch.float32)
    scores = (q.to(wide) @ k.to(wide).transpose(-1, -2)) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if causal:
        past = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~past, float("-inf"))
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
    return scores.softmax(-1).to(q.dtype)


class AttentionTap(TorchFunctionMode):
    """Shows one attention call to handlers, and puts back what they return.

    Args:
        handlers: (kind, handler) pairs; kind is one of q, k, v, probs, z.
        acts: whether the call that it was put on for is still going on; after an interrupt it is not.
    """

    def __init__(self, handlers: Iterable[tuple[str, Handler]], acts: Callable[[], bool]) -> None:
        super().__init__()
        self.handlers, self.acts = list(handlers), acts
        self.calls = 0

    def on(self) -> None:
        """Enter torch's stack of modes."""
        torch._C._push_on_torch_function_stack(self)

    def off(self) -> None:
        """Leave torch's stack of modes, with what an interrupt left on top; nothing if it is not there."""
        at, depth = torch._C._get_function_stack_at, torch._C._len_torch_function_stack
        while any(at(i) is self for i in range(depth())):
            torch._C._pop_torch_function_stack()

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Intercept scaled_dot_product_attention; pass everything else on."""
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention or not self.acts():
            return func(*args, **kwargs)
        self.calls += 1
        names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
        call = {**dict(zip(names, args, strict=False)), **kwargs}
        for kind, name in (("q", "query"), ("k", "key"), ("v", "value")):
            for handler in self._of(kind):
                call[name] = put(call[name], handler(call[name]))
        out: Tensor = func(**call)
        probs = _Probs(call)
        for handler in self._of("probs"):
            change = handler(probs)
            if change is not None:
                rows, new = change
                probs[rows] = new
                out = put(out, (rows, new.to(out) @ call["value"][indices(rows, out.device)]))
        for handler in self._of("z"):
            out = put(out, handler(out))
        return out

    def _of(self, kind: str) -> list[Handler]:
        return [h for k, h in self.handlers if k == kind]


def clear_taps() -> None:
    """Take taps whose call is over off torch's stack of modes.

    They do nothing there. torch takes a mode off while it works, and if an interrupt hits that very moment,
    puts it back late, when the traceback is forgotten.
    """
    at, depth = torch._C._get_function_stack_at, torch._C._len_torch_function_stack
    modes = [at(i) for i in range(depth())]
    kept = [m for m in modes if not isinstance(m, AttentionTap) or m.acts()]
    if len(kept) < len(modes):
        for _ in modes:
            torch._C._pop_torch_function_stack()
        for mode in kept:
            torch._C._push_on_torch_function_stack(mode)


class _Probs:
    """The probabilities of one call, computed only for the rows asked for; changed rows stay changed."""

    def __init__(self, call: dict[str, Any]) -> None:
        self.call = call
        self.shape = (*call["query"].shape[:-1], call["key"].shape[-2])
        self.changed: dict[int, Tensor] = {}

    def __setitem__(self, rows: slice | list[int], new: Tensor) -> None:
        self.changed.update(zip(self._indices(rows), new, strict=True))

    def __getitem__(self, rows: slice | list[int]) -> Tensor:
        at, mask = indices(rows, self.call["query"].device), self.call.get("attn_mask")
        q, k = self.call["query"][at], self.call["key"][at]
        if mask is not None and mask.ndim == 4 and mask.shape[0] > 1:
            mask = mask[at]
        probs = attention_probs(q, k, mask, bool(self.call.get("is_causal")), self.call.get("scale"))
        if not self.changed:
            return probs
        return torch.stack([self.changed.get(r, p) for r, p in zip(self._indices(rows), probs, strict=True)])

    def _indices(self, rows: slice | list[int]) -> list[int]:
        return list(range(self.shape[0])[rows]) if isinstance(rows, slice) else rows


def put(x: Tensor, change: tuple[slice | list[int], Tensor] | None) -> Tensor:
    """Return x with some rows replaced; x itself is never written to."""
    if change is None:
        return x
    rows, new = change
    if new.shape == x.shape and isinstance(rows, slice):  # a list may name all rows in another order
        return new.to(x)
    y = x.clone()
    y[indices(rows, y.device)] = new.to(y)
    return y
