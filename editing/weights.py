"""Put an edit on a model's weights, and take it back to the bit. The only code that writes to weights.

What was there before is kept beside each parameter, oldest first, for as long as the parameter lives; so an
edit can be taken back by anyone who holds an equal edit, and edits of the same weights come off in reverse
order.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from ..models.base import Model
from ..models.errors import UsageError
from ..models.store.fingerprint import tensor_hash
from ..models.suggest import near
from ..models.undo import Undo
from .lowrank import Delta, rows


class Changes(Protocol):
    """What an edit is to those who write it: changes of named weights, and the weights they are for."""

    @property
    def deltas(self) -> Mapping[str, Delta]:
        """What is added to each weight."""

    @property
    def base(self) -> Mapping[str, str]:
        """Fingerprint of each weight before."""

    @property
    def model(self) -> str:
        """Name of the model that it was made for."""


BLOCK = 2**20
"""Numbers of a weight that are changed at once."""

# parameter -> [(edit, the bits before it), ...], oldest first
_before: MutableMapping[Tensor, list[tuple[Changes, Tensor]]] = WeakTensorKeyDictionary()


def apply(edit: Changes, model: Model) -> None:
    """Put an edit on a model: all of it, or nothing.

    The sum of old weight and change is computed in float64 and rounded once.

    Raises:
        ValueError: if the weights are not those the edit was made for, or cannot hold the result.
    """
    _check(edit, model)
    params = {name: model.parameter(name) for name in edit.deltas}
    with Undo() as undo:
        for name, p in params.items():
            undo.add(partial(_off, edit, p))
            _before.setdefault(p, []).append((edit, p.detach().clone()))
            _add(p, name, edit.deltas[name])
        undo.forget()


def revert(edit: Changes, model: Model) -> None:
    """Take an edit back.

    Raises:
        ValueError: if it is not on this model, or another one lies on top of it.
    """
    for name in edit.deltas:
        top = _on_top(_find(edit, model, name))
        if not carries(model, edit):
            raise UsageError(f"{edit!r} is not applied to {model.name!r}; there is nothing to take back")
        if top != edit:
            raise UsageError(f"{top!r} was applied on top of it to {name}; take that one back first")
    with Undo() as undo:  # all of it, Ctrl-C halfway or not
        for p in [model.parameter(name) for name in edit.deltas]:
            undo.add(partial(_off, edit, p))


def unwind(edit: Changes, model: Model) -> None:
    """Take an edit back, and first what lies on top of it; nothing happens if it is not there any more."""
    while carries(model, edit):
        tops = [_on_top(model.parameter(name)) for name in edit.deltas]
        other = next((top for top in tops if top is not None and top != edit), None)
        if other is None:
            revert(edit, model)
        else:
            unwind(other, model)


def carries(model: Model, edit: Changes) -> bool:
    """Return whether an edit is on a model."""
    return any(done == edit for name in edit.deltas for done, _ in _before.get(_find(edit, model, name), []))


def _check(edit: Changes, model: Model) -> None:
    if carries(model, edit):
        raise UsageError(f"{edit!r} is applied to {model.name!r} already; to double it, apply 2 * edit alone")
    for name, base in edit.base.items():
        p, delta = model.parameter(name), edit.deltas[name]
        if tensor_hash(p) == base:
            if delta.shape != p.shape:  # torch would stretch some
                raise UsageError(
                    f"the change of {name} has shape {tuple(delta.shape)}, the weight has {tuple(p.shape)}; "
                    "make the edit again"
                )
            continue
        top = _on_top(p)
        if top is not None:
            raise UsageError(
                f"{name} of {model.name!r} carries {top!r}, and this edit was made for the weight "
                "without it; revert that one first, or apply the sum of both: (e + f).apply(model)"
            )
        raise UsageError(
            f"this edit is for other weights: it was made for {edit.model!r}, and {name} of {model.name!r} "
            "is different; open the model it was made for, or make the edit again on this one"
        )


def _find(edit: Changes, model: Model, name: str) -> nn.Parameter:
    try:
        return model.parameter(name)
    except LookupError:
        known = (f"{c}.{n}" for c, m in model.components.items() for n, _ in m.named_parameters())
        raise UsageError(
            f"this edit is for other weights: it was made for {edit.model!r} and changes {name}, which "
            f"{model.name!r} does not have; {near(name, known)}"
        ) from None


def _on_top(parameter: Tensor) -> Changes | None:
    done = _before.get(parameter)
    return done[-1][0] if done else None


def _off(edit: Changes, parameter: Tensor) -> None:
    """Put back what was there before an edit, if it lies on top."""
    if _on_top(parameter) == edit:
        _write(parameter, _before[parameter][-1][1])
        _before[parameter].pop()


def _add(p: Tensor, name: str, delta: Delta) -> None:
    """Add a change, some rows at a time: whole weights in float64 would be four times those in float16."""
    p, wanted, lost = p if p.ndim else p[None], 0.0, 0.0
    step = max(1, BLOCK * len(p) // max(p.numel(), 1))
    with torch.no_grad():
        for i in range(0, len(p), step):
            part, change = p[i : i + step], rows(delta, slice(i, i + step))
            before = part.to("cpu", torch.float64)
            after = (before + change).to(p.dtype)
            made = after.double()
            if not bool(made.isfinite().all()):
                raise UsageError(
                    f"{name} cannot hold the edited values in {p.dtype}; scale the edit: 0.5 * edit"
                )
            _write(part, after)
            wanted += float(change.square().sum())
            lost += float((made - before - change).square().sum())
    if lost > 0.25 * wanted:
        raise UsageError(
            f"the edit is too small for {name} in {p.dtype}: rounding takes {(lost / wanted) ** 0.5:.0%} of "
            "it; open the model in float32 (dtype=torch.float32)"
        )


def _write(parameter: Tensor, values: Tensor) -> None:
    with torch.no_grad():
        parameter.copy_(values)
