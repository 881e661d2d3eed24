"""A network as a linear map of one activation: what is not linear is held at the values of one call.

Attention probabilities (through queries and keys), the deviations of norms and the gates of activation
functions are held: ``silu(x) = x sigmoid(x)`` with its sigmoid, for example. Of a product of two things that
both depend on the activation the second is held (in a gated block, ``a * gelu(g)``, the gate). What is left
is linear, has the same value, and its gradient says exactly what a change of the activation does in it
(Dunefsky et al. 2024; Ameisen et al. 2025).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

ATTENTION = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
GATED = (F.silu, F.gelu)
PRODUCTS = (torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__)
SOFTMAX = (F.softmax, torch.softmax, Tensor.softmax)


class Frozen(TorchFunctionMode):
    """Within it what is not linear is held: first at its own values, and in replays at those of the first.

    Args:
        tape: what another call held, in order; None holds what comes by.
    """

    def __init__(self, tape: Sequence[Tensor] | None = None) -> None:
        super().__init__()
        self.tape: list[Tensor] = list(tape or [])
        self.replay = tape is not None
        self.at = 0

    def held(self, x: Tensor) -> Tensor:
        """The value that stands for x: its own, or in a replay that of the first call."""
        if not self.replay:
            self.tape.append(x.detach())
            return self.tape[-1]
        self.at += 1
        return self.tape[self.at - 1]

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Replace what is not linear, where it depends on the activation; pass everything else on."""
        given = kwargs or {}
        if not _depends(*args, *given.values()):
            return func(*args, **given)
        if func is F.scaled_dot_product_attention:
            call = {**dict(zip(ATTENTION, args, strict=False)), **given}
            return func(**{**call, "query": self.held(call["query"]), "key": self.held(call["key"])})
        if func in GATED:
            x, rest = (args[0], args[1:]) if args else (given.pop("input"), ())
            return x * self.held(_gate(func, x, rest, given))
        if func in NORMS:
            return NORMS[func](self.held, *args, **given)
        if func in PRODUCTS and all(map(_depends, args)):
            return func(args[0], self.held(args[1]))
        return self.held(func(*args, **given)) if func in SOFTMAX else func(*args, **given)


def _depends(*values: Any) -> bool:
    """Whether any of them depends on the activation; weights do not require gradients meanwhile."""
    return any(isinstance(x, Tensor) and x.requires_grad for x in values)


def _gate(func: Callable[..., Tensor], x: Tensor, args: Sequence[Any], given: dict[str, Any]) -> Tensor:
    """What x is multiplied by; one half at 0, where ``silu`` and ``gelu`` are x / 2."""
    x, rest = x.detach(), {k: v for k, v in given.items() if k != "inplace"}
    out = func(x, *(a for a in args if not isinstance(a, bool)), **rest)
    small = x.abs() < 1e-6
    return torch.where(small, 0.5, out / torch.where(small, 1.0, x))


def _group_norm(  # noqa: PLR0917  # as torch has them
    held: Callable[[Tensor], Tensor],
    input: Tensor,  # noqa: A002
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    groups = input.reshape(len(input), num_groups, -1)
    out = _centred(held, groups, (-1,), eps).reshape(input.shape)
    return _affine(out, *(p if p is None else p.view(1, -1, *(1,) * (out.ndim - 2)) for p in (weight, bias)))


def _layer_norm(  # noqa: PLR0917  # as torch has them
    held: Callable[[Tensor], Tensor],
    input: Tensor,  # noqa: A002
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    return _affine(_centred(held, input, tuple(range(-len(normalized_shape), 0)), eps), weight, bias)


def _centred(held: Callable[[Tensor], Tensor], x: Tensor, over: tuple[int, ...], eps: float) -> Tensor:
    """Less its mean, which is linear, over its deviation, which is held."""
    rest = x - x.mean(over, keepdim=True)
    return rest * held((rest.detach().square().mean(over, keepdim=True) + eps).rsqrt())


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


NORMS: dict[Any, Callable[..., Tensor]] = {F.group_norm: _group_norm, F.layer_norm: _layer_norm}
