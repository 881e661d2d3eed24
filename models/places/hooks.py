"""The only code that adds hooks: attach handlers to places in a model, and leave nothing behind."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn

from ..errors import StateError, UsageError
from ..site import Site
from ..undo import Undo
from .attention import AttentionTap, Handler, clear_taps, put
from .refuse import check_hooks_act

if TYPE_CHECKING:
    from ..adapter import Adapter
    from .blocks import Place

Item: TypeAlias = int | str | None

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@contextmanager
def hooked(model: Adapter, handlers: Sequence[tuple[Site, Handler]]) -> Iterator[None]:
    """Let handlers look at, and change, the tensors at their sites while the context lasts.

    Handlers at one site act in the order given. The model is as it was afterwards, error or not.

    Raises:
        LookupError: if a site is not in the model.
        RuntimeError: if what holds a site was compiled, or is computed again for gradients: hooks would be
            skipped silently.
    """
    places = model.places_of([site for site, _ in handlers])
    check_hooks_act(model, [(site, place) for (site, _), place in zip(handlers, places, strict=True)])
    clear_taps()
    with Undo() as undo:
        taps: dict[nn.Module, list[tuple[str, Handler]]] = {}
        for (site, handler), place in zip(handlers, places, strict=True):
            if place.port == "sdpa":
                taps.setdefault(place.module, []).append((str(place.item), handler))
            else:
                _attach(undo, place, site, handler)
        for module, pairs in taps.items():
            _tap(undo, model, module, pairs)
        yield


@contextmanager
def before_calls(module: nn.Module, before: Callable[[Any, Any], None]) -> Iterator[None]:
    """Call ``before(args, kwargs)`` ahead of each call of a module, and of all other hooks."""
    with Undo() as undo:
        _before(undo, module, lambda _, args, kwargs: before(args, kwargs), with_kwargs=True, prepend=True)
        yield


@contextmanager
def after_calls(module: nn.Module, done: Callable[[], None], always: Callable[[], None]) -> Iterator[None]:
    """Call ``done()`` after each call of a module that succeeds, and then ``always()``, error or not.

    Hooks that are there already come first. An interrupt is no error to torch: ``always`` is not called then.
    """
    with Undo() as undo:
        _after(undo, module, lambda *_: done())
        _after(undo, module, lambda *_: always(), always_call=True)
        yield


@contextmanager
def suspended(modules: nn.Module | Sequence[nn.Module]) -> Iterator[None]:
    """Let nobody see the calls of a module and of those inside it: hooks and all attention taps rest.

    Args:
        modules: a module; or a list of all that are meant, where they are known.
    """
    every = list(modules.modules()) if isinstance(modules, nn.Module) else modules
    with Undo() as undo:
        for own in (own for m in every if _is_watched(own := vars(m))):
            undo.add(partial(own.update, {k: own[k] for k in _HOOKS}))
            own.update({k: OrderedDict() for k in _HOOKS})
        with torch._C.DisableTorchFunction():
            yield


def _is_watched(own: Mapping[str, Any]) -> bool:
    forward = own["_forward_hooks"] or own["_forward_pre_hooks"]
    return bool(forward or own["_backward_hooks"] or own["_backward_pre_hooks"])


@contextmanager
def inputs(model: Adapter, site: Site) -> Iterator[list[Tensor]]:
    """Collect what the module at a site is given, one tensor on the CPU for each call in the context.

    Raises:
        LookupError, RuntimeError: as ``hooked``.
    """
    place, seen = model.place(site), list[Tensor]()
    check_hooks_act(model, [(site, place)])
    with Undo() as undo:
        _before(undo, place.module, lambda _, args: seen.append(args[0].detach().cpu()))
        yield seen


def _before(undo: Undo, module: nn.Module, hook: Callable[..., Any], **how: bool) -> None:
    undo.add(partial(_take_off, module, hook))
    module.register_forward_pre_hook(hook, **how)


def _after(undo: Undo, module: nn.Module, hook: Callable[..., Any], **how: bool) -> None:
    undo.add(partial(_take_off, module, hook))
    module.register_forward_hook(hook, **how)


def _take_off(module: nn.Module, hook: Callable[..., Any]) -> None:
    """Take a hook off, found by itself: its handle is lost if an interrupt comes while it is made."""
    for name in ("_forward_hooks", "_forward_pre_hooks"):
        hooks = getattr(module, name)
        for key in [k for k, other in hooks.items() if other is hook]:
            for marks in (f"{name}_with_kwargs", f"{name}_always_called"):
                getattr(module, marks, {}).pop(key, None)
            del hooks[key]  # last, so that what is interrupted here is found again


def _attach(undo: Undo, place: Place, site: Site, handler: Handler) -> None:
    module, item = place.module, place.item

    def change(x: Any) -> Any:
        return put(x, handler(x)) if isinstance(x, Tensor) else _several(site, x)

    if place.port == "in":
        name, entry = argument_of(module, item)

        def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            value = picked(module, site, item, args, kwargs)
            new = change(value)
            if name in kwargs:
                return args, {**kwargs, name: {**kwargs[name], entry: new} if entry else new}
            i = parameters(module).index(name)
            return (*args[:i], {**args[i], entry: new} if entry else new, *args[i + 1 :]), kwargs

        _before(undo, module, before, with_kwargs=True)
        return

    def after(_module: nn.Module, _args: Any, out: Any) -> Any:
        if not isinstance(out, tuple):
            return change(out)
        i = item if isinstance(item, int) else (0 if len(out) == 1 else None)
        return _several(site, out) if i is None else (*out[:i], change(out[i]), *out[i + 1 :])

    _after(undo, module, after)
    for key, other in list(module._forward_hooks.items()):
        # transformers records hidden states by hooks of its own, there from the first call on: they go last,
        # or what the denoiser reads of them would be the states before the change
        if getattr(other, "__module__", "") == "transformers.utils.output_capturing":
            module._forward_hooks.move_to_end(key)  # type: ignore[attr-defined]


def parameters(module: nn.Module) -> list[str]:
    """Return the names of the arguments of a module, in order, as its class declares them."""
    return list(inspect.signature(type(module).forward).parameters)[1:]


def argument_of(module: nn.Module, item: Item) -> tuple[str, str]:
    """Return which argument of a module an item means, and which entry of it where that is a dictionary.

    Raises:
        RuntimeError: if the module takes no such argument.
    """
    names = parameters(module)
    name, _, entry = item.partition(".") if isinstance(item, str) else (names[item or 0], "", "")
    if name not in names:
        raise StateError(f"{type(module).__name__} takes no argument {name!r}; it takes {', '.join(names)}")
    return name, entry


def picked(module: nn.Module, site: Site, item: Item, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Return the argument of a call that a site means, given by name or by position.

    Raises:
        RuntimeError: if the call does not give it.
    """
    name, entry = argument_of(module, item)
    i = parameters(module).index(name)
    value = kwargs.get(name, args[i] if len(args) > i else None)
    value = (value or {}).get(entry) if entry else value
    if value is None:
        raise StateError(f"{site} is the argument {item!r} of {type(module).__name__}, which was not given")
    return value


def _several(site: Site, values: Any) -> Any:
    shapes = (
        [tuple(v.shape) for v in values if isinstance(v, Tensor)] if isinstance(values, tuple) else values
    )
    raise UsageError(f"{site} carries several values of shapes {shapes}; name one, with @img or @txt")


def _tap(undo: Undo, model: Adapter, module: nn.Module, pairs: list[tuple[str, Handler]]) -> None:
    active: list[AttentionTap] = []

    def push(*_: Any) -> None:
        call = model.call
        active.append(AttentionTap(pairs, lambda: model.call is call))
        active[-1].on()

    def pop(*_: Any) -> None:
        if active:
            active[-1].off()
            active.pop()

    def all_off() -> None:
        for tap in reversed(active):
            tap.off()

    def check(*_: Any) -> None:
        if active and not active[-1].calls:
            raise StateError(
                f"{type(module).__name__} did not use fused attention, so its inside cannot be seen; "
                "turn off attention slicing and custom attention processors"
            )

    # pop runs even if the module fails, but for an interrupt; check runs first, while the tap is still there
    undo.add(all_off)
    _before(undo, module, push)
    _after(undo, module, check)
    _after(undo, module, pop, always_call=True)
