"""The only code that adds hooks: attach handlers to places in a model, and leave nothing behind."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..site import Site
from .attention import AttentionTap, Handler, put

if TYPE_CHECKING:
    from ..base import Model
    from .blocks import Place

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@contextmanager
def hooked(model: Model, handlers: Sequence[tuple[Site, Handler]]) -> Iterator[None]:
    """Let handlers look at, and change, the tensors at their sites while the context lasts.

    Handlers at one site act in the order given. The model is as it was afterwards, error or not.

    Raises:
        LookupError: if a site is not in the model.
        RuntimeError: if a component was compiled, or a module replaced since then: hooks would be skipped
            silently.
    """
    _refuse_compiled(model, {site.component for site, _ in handlers})
    with ExitStack() as stack:
        taps: dict[nn.Module, list[tuple[str, Handler]]] = {}
        for site, handler in handlers:
            place = model.place(site)
            _refuse_replaced(model, site, place)
            if place.port == "sdpa":
                taps.setdefault(place.module, []).append((str(place.item), handler))
            else:
                stack.callback(_attach(place.module, site, place.port, place.item, handler).remove)
        for module, pairs in taps.items():
            _tap(stack, module, pairs)
        yield


@contextmanager
def around(
    module: nn.Module, before: Callable[[Any, Any], None], after: Callable[[], None]
) -> Iterator[None]:
    """Call ``before(args, kwargs)`` and ``after()`` around each call of a module, even of one that fails."""

    def enter(_: nn.Module, args: Any, kwargs: Any) -> None:
        before(args, kwargs)

    def leave(*_: Any) -> None:
        after()

    with ExitStack() as stack:
        # first of all, so that other hooks already know where they are
        stack.callback(module.register_forward_pre_hook(enter, with_kwargs=True, prepend=True).remove)
        stack.callback(module.register_forward_hook(leave, always_call=True).remove)
        yield


@contextmanager
def calls(module: nn.Module, begin: Callable[[], None], end: Callable[[], None]) -> Iterator[None]:
    """Call ``begin()`` before and ``end()`` after each call of a module; ``end`` not after one that fails."""
    with ExitStack() as stack:
        stack.callback(module.register_forward_pre_hook(lambda *_: begin(), prepend=True).remove)
        stack.callback(module.register_forward_hook(lambda *_: end()).remove)
        yield


@contextmanager
def suspended(modules: nn.Module | Sequence[nn.Module]) -> Iterator[None]:
    """Let nobody see the calls of a module and of those inside it: hooks and all attention taps rest.

    Args:
        modules: a module; or a list of all that are meant, where they are known.
    """
    every = list(modules.modules()) if isinstance(modules, nn.Module) else modules
    kept = [(own, {k: own[k] for k in _HOOKS}) for m in every if _is_watched(own := vars(m))]
    for own, hooks in kept:
        own.update({k: OrderedDict() for k in hooks})
    try:
        with torch._C.DisableTorchFunction():
            yield
    finally:
        for own, hooks in kept:
            own.update(hooks)


def _is_watched(own: Mapping[str, Any]) -> bool:
    forward = own["_forward_hooks"] or own["_forward_pre_hooks"]
    return bool(forward or own["_backward_hooks"] or own["_backward_pre_hooks"])


@contextmanager
def inputs(model: Model, site: Site) -> Iterator[list[Tensor]]:
    """Collect what the module at a site is given, one tensor on the CPU for each call in the context.

    Raises:
        LookupError, RuntimeError: as ``hooked``.
    """
    place, seen = model.place(site), list[Tensor]()
    _refuse_compiled(model, {site.component})
    _refuse_replaced(model, site, place)
    hook = place.module.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach().cpu()))
    try:
        yield seen
    finally:
        hook.remove()


def _attach(module: nn.Module, site: Site, port: str, item: int | str | None, handler: Handler) -> Any:
    def change(x: Any) -> Any:
        return put(x, handler(x)) if isinstance(x, Tensor) else _several(site, x)

    if port == "in":

        def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if isinstance(item, str) and item in kwargs:
                return args, {**kwargs, item: change(kwargs[item])}
            i = item if isinstance(item, int) else 0
            if len(args) > i:
                return (*args[:i], change(args[i]), *args[i + 1 :]), kwargs
            name = next(iter(kwargs))
            return args, {**kwargs, name: change(kwargs[name])}

        return module.register_forward_pre_hook(before, with_kwargs=True)

    def after(_module: nn.Module, _args: Any, out: Any) -> Any:
        if not isinstance(out, tuple):
            return change(out)
        i = item if isinstance(item, int) else (0 if len(out) == 1 else None)
        return _several(site, out) if i is None else (*out[:i], change(out[i]), *out[i + 1 :])

    return module.register_forward_hook(after)


def _several(site: Site, values: Any) -> Any:
    shapes = (
        [tuple(v.shape) for v in values if isinstance(v, Tensor)] if isinstance(values, tuple) else values
    )
    raise ValueError(f"{site} carries several values of shapes {shapes}; name one, with @img or @txt")


def _tap(stack: ExitStack, module: nn.Module, pairs: list[tuple[str, Handler]]) -> None:
    active: list[tuple[AttentionTap, ExitStack]] = []

    def push(*_: Any) -> None:
        tap, inside = AttentionTap(pairs), ExitStack()
        inside.enter_context(tap)
        active.append((tap, inside))

    def pop(*_: Any) -> None:
        if active:
            active.pop()[1].close()

    def check(*_: Any) -> None:
        if active and not active[-1][0].calls:
            raise RuntimeError(
                f"{type(module).__name__} did not use fused attention, so its inside cannot be seen; "
                "turn off attention slicing and custom attention processors"
            )

    # pop runs even if the module fails; check runs first, while the tap is still there
    stack.callback(module.register_forward_pre_hook(push).remove)
    stack.callback(module.register_forward_hook(check).remove)
    stack.callback(module.register_forward_hook(pop, always_call=True).remove)


def _refuse_replaced(model: Model, site: Site, place: Place) -> None:
    """Loading a LoRA puts other modules in place, for example."""
    root = model.components.get(site.component)
    if root is not None and root.get_submodule(place.path) is not place.module:
        raise RuntimeError(
            f"the module at {site} was replaced after {model.name} was opened (a LoRA?), so a hook on it "
            "would be skipped silently; open the pipeline again: model = denoscope.load(model.pipe)"
        )


def _refuse_compiled(model: Model, components: set[str]) -> None:
    parts: Mapping[str, nn.Module] = model.components
    for name in components & set(parts):
        for module in parts[name].modules():
            if type(module).__name__ == "OptimizedModule" or module._compiled_call_impl is not None:
                raise RuntimeError(
                    f"{name} was compiled; hooks inside it would be skipped silently. "
                    "Open the uncompiled model (torch.compile keeps it as module._orig_mod)"
                )
