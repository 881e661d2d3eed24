"""What runs otherwise than it looks, and would be silently wrong: refused by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..errors import StateError, UsageError
from .live import modules_in

if TYPE_CHECKING:
    from ..adapter import Adapter
    from ..site import Site
    from .blocks import Place

_EAGER: ContextVar[bool] = ContextVar("_EAGER", default=False)
"""Whether nothing that was compiled runs compiled just now."""


def check_hooks_act(model: Adapter, watched: Sequence[tuple[Site, Place]]) -> None:
    """Raise StateError if hooks at some places would be skipped silently."""
    parts: Mapping[str, nn.Module] = model.components
    for name in {site.component for site, _ in watched} & set(parts):
        here = [(site, place) for site, place in watched if site.component == name]
        _refuse_compiled(name, parts[name], here)
        modules = modules_in(parts[name])
        if torch.is_grad_enabled() and any(map(_computed_again, modules)):
            raise StateError(
                f"{name} has gradient checkpointing, which computes it again in backward(), when "
                f"interventions may be gone; pipe.{name}.disable_gradient_checkpointing(), and "
                "sample(..., recompute=True) does the same with the interventions of the run"
            )


def _refuse_compiled(name: str, network: nn.Module, watched: Sequence[tuple[Site, Place]]) -> None:
    """Raise StateError if a hook lies inside what was compiled.

    Around a module whose ``forward`` was compiled hooks act: torch calls them outside. ``Module.compile`` and
    ``torch.compile(module)`` compile the call of a module, with the hooks that it has at that moment.
    """
    compiled = [] if _EAGER.get() else [m for m in modules_in(network) if _is_compiled(m)]
    if not compiled:
        return
    shut = {m for one in compiled for m in modules_in(one)[0 if _has_compiled_call(one) else 1 :]}
    for site, place in watched:
        if place.module in shut or (place.port == "sdpa" and place.module in compiled):
            raise StateError(
                f"{name} was compiled, and {site} lies inside; its hook would be skipped silently. Open the "
                "uncompiled model (torch.compile keeps it as module._orig_mod), or compile only other parts: "
                "module.forward = torch.compile(module.forward)"
            )


@contextmanager
def uncompiled(model: Adapter) -> Iterator[None]:
    """Let all parts of a model run uncompiled, where every hook acts; nothing is recompiled for it."""
    if not any(_is_compiled(m) for part in model.components.values() for m in modules_in(part)):
        yield
        return
    token = _EAGER.set(True)
    try:
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        _EAGER.reset(token)


def refuse_memory(name: str, network: nn.Module) -> None:
    """Raise StateError for a network that keeps something from call to call: diffusers' caches.

    They skip blocks, and only the pipeline itself says when a run begins and ends: our calls would be wrong,
    and so would the pipeline's next.
    """
    for module in modules_in(network):
        kept = [n for n, hook in _diffusers_hooks(module).items() if hook._is_stateful]
        if kept:
            raise StateError(
                f"{name} has a cache that skips blocks ({kept[0]}), so a call would depend on earlier ones, "
                f"and the next picture on this; pipe.{name}.disable_cache(), or watch calls of the pipeline: "
                "denoscope.attached(pipe, ...)"
            )


def refuse_absent(name: str, module: nn.Module) -> None:
    """Raise UsageError for a component whose weights in memory are not those that it computes with."""
    if any(parameter.is_meta for parameter in module.parameters()):
        raise UsageError(
            f"the weights of {name} are not in memory but come and go one by one "
            "(enable_sequential_cpu_offload), so they can neither be checked nor edited; "
            "use pipe.enable_model_cpu_offload(), which moves whole components"
        )
    for child in modules_in(module):
        hook = _diffusers_hooks(child).get("group_offloading")
        if getattr(getattr(hook, "config", None), "offload_to_disk_path", None) is not None:
            raise UsageError(
                f"the weights of {name} lie on disk, and what is in memory is not them (group offload with "
                "offload_to_disk_path); offload to memory, or use pipe.enable_model_cpu_offload()"
            )


def _diffusers_hooks(module: nn.Module) -> Mapping[str, Any]:
    registry = vars(module).get("_diffusers_hook")
    return registry.hooks if registry else {}


def _computed_again(module: nn.Module) -> bool:
    if not vars(module).get("gradient_checkpointing"):
        return False
    return module.training or type(module).__module__.startswith("diffusers.")  # which does it in eval too


def _is_compiled(module: nn.Module) -> bool:
    return _has_compiled_call(module) or hasattr(vars(module).get("forward"), "_torchdynamo_orig_callable")


def _has_compiled_call(module: nn.Module) -> bool:
    return type(module).__name__ == "OptimizedModule" or module._compiled_call_impl is not None
