"""Put an edit on a model's weights, and take it back to the bit. The only code that writes to weights.

What was there before is kept beside each parameter, oldest first, for as long as the parameter lives; so an
edit can be taken back by anyone who holds an equal edit, and edits of the same weights come off in reverse
order.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from ..models.base import Model
from ..models.errors import StateError, UsageError
from ..models.suggest import near
from ..models.undo import Undo
from .base import base_of, same_base, same_weight
from .lowrank import Delta
from .sums import check_holds, check_not_lost, summed


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

    def apply(self, model: Any) -> None:
        """Put it on a model."""

    def revert(self, model: Any) -> None:
        """Take it back."""


# parameter -> [(edit, the bits before it), ...], oldest first
_before: MutableMapping[Tensor, list[tuple[Changes, Tensor]]] = WeakTensorKeyDictionary()


def apply(edit: Changes, model: Model) -> None:
    """Put an edit on a model: all of it, or nothing.

    The sum of old weight and change is computed in float64 and rounded once.

    Raises:
        ValueError: if the weights are not those the edit was made for, cannot hold the result, or were made
            under ``torch.inference_mode``.
    """
    check(edit, model)
    params = {name: model.parameter(name) for name in edit.deltas}
    made_to_stay = [name for name, p in params.items() if p.is_inference()]
    if made_to_stay and not torch.is_inference_mode_enabled():
        raise UsageError(
            f"{made_to_stay[0]} was made under torch.inference_mode(), so nothing can be written to it; open "
            f"{model.name!r} outside of that block, or apply the edit inside of one"
        )
    with Undo() as undo:
        for name, p in params.items():
            undo.add(partial(_off, edit, p))
            _before.setdefault(p, []).append((edit, p.detach().clone()))
            _add(p, name, edit.deltas[name])
        undo.forget()


def revert(edit: Changes, model: Model) -> None:
    """Take an edit back.

    Raises:
        ValueError: if the edit is not on this model, or another one lies on top of it.
        RuntimeError: if some of its weights were replaced or written to meanwhile. They are left as they are,
            and the others taken back.
    """
    params = {name: _find(edit, model, name) for name in edit.deltas}
    if not any(_has(p, edit) for p in params.values()):
        raise UsageError(f"{edit!r} is not applied to {model.name!r}; there is nothing to take back")
    _take_off(edit, model, params)


def unwind(edit: Changes, model: Model, params: Mapping[str, nn.Parameter]) -> None:
    """Take an edit off the parameters that it was put on, and first what lies on top of it.

    Nothing happens if it is not there any more.

    Raises:
        RuntimeError: as ``revert``.
    """
    while any(_has(p, edit) for p in params.values()):
        tops = [_on_top(p) for p in params.values() if _has(p, edit)]
        other = next((top for top in tops if top is not None and top != edit), None)
        if other is None:
            _take_off(edit, model, params)
        else:
            unwind(other, model, {n: _find(other, model, n) for n in other.deltas})


def carries(model: Model, edit: Changes) -> bool:
    """Return whether an edit is on a model."""
    return any(_has(_find(edit, model, name), edit) for name in edit.deltas)


def edits_on(model: Model) -> list[Changes]:
    """Return the edits that are on a model, in an order in which they can be put on another one."""
    params = [p for part in model.components.values() for p in part.parameters() if p in _before]
    stacks = [[edit for edit, _ in _before[p]] for p in params]
    found: list[Changes] = []
    while stacks := [stack for stack in stacks if stack]:
        free = (s[0] for s in stacks if all(s[0] not in other[1:] for other in stacks))
        found.append(next(free))
        stacks = [stack[1:] if stack[0] == found[-1] else stack for stack in stacks]
    return found


def _take_off(edit: Changes, model: Model, params: Mapping[str, nn.Parameter]) -> None:
    for name, p in params.items():
        top = _on_top(p)
        if _has(p, edit) and top != edit:
            raise UsageError(f"{top!r} was applied on top of it to {name}; take that one back first")
    written = [n for n, p in params.items() if _has(p, edit) and not _is_as_left(edit, n, p)]
    replaced = [n for n, p in params.items() if not _has(p, edit) or _now(model, n) is not p]
    with Undo() as undo:  # all of it, Ctrl-C halfway or not
        for name, p in params.items():
            undo.add(partial(_forget if name in written else _off, edit, p))
    if written or replaced:
        raise StateError(
            f"{', '.join(dict.fromkeys([*written, *replaced]))} of {model.name!r} was replaced or written to "
            f"while {edit!r} was on it (load_state_dict, fuse_lora, offloading, training). What is there now "
            "was left as it is, and may hold the edit: load those weights again, and do such things before "
            "an edit is applied, or after"
        )


def check(edit: Changes, model: Model) -> None:
    """Make sure that an edit can be put on a model.

    Raises:
        ValueError: if the weights are not those the edit was made for, or are edited already.
    """
    if carries(model, edit):
        raise UsageError(f"{edit!r} is applied to {model.name!r} already; to double it, apply 2 * edit alone")
    for name, now in base_of(model, edit.base).items():
        delta, p = edit.deltas[name], model.parameter(name)
        if same_base(now, edit.base[name]):
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
        if same_weight(now, edit.base[name]):
            part = name.partition(".")[0]
            raise UsageError(
                f"this edit was made with other adapters (LoRAs) active in {part} than {model.name!r} has "
                "now, and what it changes was read through them; activate the same (pipe.set_adapters, "
                "pipe.disable_lora), or make the edit again"
            )
        raise UsageError(
            f"this edit is for other weights: it was made for {edit.model!r}, and {name} of {model.name!r} "
            "is different; open the model it was made for, or make the edit again on this one"
        )


def _is_as_left(edit: Changes, name: str, parameter: Tensor) -> bool:
    """Whether a weight is what the edit made of it, in whatever number format it is now."""
    now = parameter.detach() if parameter.ndim else parameter.detach()[None]
    left = summed(_before[parameter][-1][1], edit.deltas[name])
    return all(torch.equal(part.to(now.dtype), now[some].cpu()) for some, _, _, part in left)


def _find(edit: Changes, model: Model, name: str) -> nn.Parameter:
    try:
        return model.parameter(name)
    except LookupError:
        known = (f"{c}.{n}" for c, m in model.components.items() for n, _ in m.named_parameters())
        raise UsageError(
            f"this edit is for other weights: it was made for {edit.model!r} and changes {name}, which "
            f"{model.name!r} does not have; {near(name, known)}"
        ) from None


def _now(model: Model, name: str) -> nn.Parameter | None:
    try:
        return model.parameter(name)
    except LookupError:
        return None


def _has(parameter: Tensor, edit: Changes) -> bool:
    return any(done == edit for done, _ in _before.get(parameter, ()))


def _on_top(parameter: Tensor) -> Changes | None:
    done = _before.get(parameter)
    return done[-1][0] if done else None


def _off(edit: Changes, parameter: Tensor) -> None:
    """Put back what was there before an edit, if it lies on top."""
    if _on_top(parameter) == edit:
        _write(parameter, _before[parameter][-1][1])
        _before[parameter].pop()


def _add(p: Tensor, name: str, delta: Delta) -> None:
    before, squares = _before[p][-1][1], []
    for some, change, exact, after in summed(before, delta):
        squares.append(check_holds(name, change, exact, after))
        _write(p[some] if p.ndim else p[None], after)
    check_not_lost(name, p.dtype, *map(sum, zip(*squares, strict=True)))


def _forget(edit: Changes, parameter: Tensor) -> None:
    if _on_top(parameter) == edit:
        _before[parameter].pop()


def _write(parameter: Tensor, values: Tensor) -> None:
    with torch.no_grad():
        parameter.copy_(values)
