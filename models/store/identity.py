"""What a model's numbers depend on beside its inputs, as JSON: for the keys of what is kept.

Weights are not all of it: the same weights compute something else with another configuration, number format,
attention processor or FreeU, under autocast, or with a hook of somebody's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, is_dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from ..base import Model
from ..errors import StateError, UsageError
from ..guidance.value import Guidance
from ..run.settings import Sampling
from .canonical import json_hash, plain_json
from .fingerprint import fingerprint, named_modules
from .numerics import NUMERICS
from .provenance import plain, scheduler_config

SET_LATER = ("s1", "s2", "b1", "b2", "use_tiling", "use_slicing")
"""What pipelines set on layers beside their configuration: FreeU, and how pictures are decoded."""
_MACHINE = ("transformers_version", "dtype", "torch_dtype")
_OURS = ("accelerate", "diffusers", "peft", "transformers")
"""Libraries whose hooks do not change what is computed, or are part of what layers are set to."""


def identity(model: Model, how: Sampling, batch: int) -> dict[str, Any]:
    """Return what all units of a run share: the model as it is, scheduler, settings; JSON.

    Raises:
        StateError: if somebody watches or changes the model from outside: what that does is not known.
        UsageError: for guidance or attention processors of which nobody can tell what they do.
    """
    guidance = {"guidance": _guidance(how.guided(model)), "true_scale": model.true_cfg_scale}
    shift = {"shift": plain(vars(model.scheduler).get("_shift"))}  # may be set beside the configuration
    scheduler = {"class": type(model.scheduler).__name__, **scheduler_config(model.scheduler), **shift}
    return {
        **network_identity(model),
        "scheduler": scheduler,
        "size": list(model.size),
        "settings": {**how.described(model), **guidance, "batch": batch},
    }


def network_identity(model: Model) -> dict[str, Any]:
    """Return what a model's networks compute with: weights, configuration, number formats; JSON.

    Raises:
        StateError, UsageError: as ``identity``.
    """
    if model.live.watched:
        raise StateError(
            "interventions of a surrounding context act on the model, and a store cannot know them; give "
            "them to the run itself, or leave out store"
        )
    own = getattr(model.pipe, "config", None) or {}
    flags = {n: v for n, v in dict(own).items() if n[0] != "_" and isinstance(v, bool | int | float | str)}
    return {
        "family": type(model).__name__,
        "weights": fingerprint(model),
        "configuration": {"pipeline": flags, **{n: _config(m) for n, m in model.components.items()}},
        "layers": {n: json_hash(list(_set_to(n, m))) for n, m in model.components.items()},
        "formats": {n: _formats(m) for n, m in model.components.items()},
        "computes": {"dtype": _name(model.dtype), **_autocast(model.device.type)},
        "numerics": NUMERICS,
    }


def digest(base: Mapping[str, Any]) -> str:
    """Return a hash of what units share, for their keys."""
    return json_hash(plain_json(base, "what a store shares"))


def spec_of(thing: Any, what: str) -> Any:
    """Return what a function is, as a value: its ``spec``.

    Args:
        thing: a metric, a judge: whatever has a ``spec``, which is JSON or a function that returns it.
        what: how to call it in an error.

    Raises:
        UsageError: for a function without one.
    """
    spec = getattr(thing, "spec", None)
    spec = spec() if callable(spec) else spec
    if spec is None:
        name = getattr(thing, "__qualname__", type(thing).__name__)
        raise UsageError(
            f"{what} {name} is code of your own, and a store cannot tell whether it is still the same; give "
            "it a spec, which has to change whenever it does: "
            f"{what.split()[-1]}.spec = {{'name': {name!r}, 'version': 1}}. Or leave out store"
        )
    return plain_json(spec, f"the spec of {what}")


def _guidance(guidance: Guidance) -> dict[str, Any]:
    name = type(guidance).__name__
    if not is_from(guidance, ("denoscope",)):
        return {name: spec_of(guidance, "the guidance")}
    try:
        if not is_dataclass(guidance):
            raise UsageError(f"it is no dataclass, but {name}")
        return {name: plain_json(asdict(guidance), "guidance")}
    except UsageError as error:
        raise UsageError(
            f"{guidance!r} cannot be told in a store's keys ({error}); give a number, or a guidance whose "
            "fields are numbers and texts, or leave out store"
        ) from None


def _config(module: nn.Module) -> dict[str, Any]:
    """A component's configuration, without what differs from machine to machine."""
    found: Any = getattr(module, "config", None)
    told = found.to_dict() if hasattr(found, "to_dict") else dict(found or {})
    return {n: plain(v) for n, v in sorted(told.items()) if n[0] != "_" and n not in _MACHINE}


def _set_to(component: str, network: nn.Module) -> Iterator[list[Any]]:
    """Of each layer what is set beside its weights; and nothing in it that nobody can tell of."""
    for name, module in sorted(named_modules({component: network})):
        own = vars(module)
        _check_untouched(name, own)
        told = {n: own[n] for n in SET_LATER if own.get(n) is not None}
        processor = own["_modules"].get("processor", own.get("processor"))
        if processor is not None:
            told["processor"] = _processor(name, processor)
        if told:
            yield [name, told]


def _processor(layer: str, processor: Any) -> list[Any]:
    if not is_from(processor, ("diffusers", "denoscope")):
        return [type(processor).__qualname__, spec_of(processor, f"the attention processor of {layer}")]
    return [type(processor).__qualname__, {n: plain(v) for n, v in vars(processor).items() if n[0] != "_"}]


def _check_untouched(layer: str, own: Mapping[str, Any]) -> None:
    hooks = [*own["_forward_hooks"].values(), *own["_forward_pre_hooks"].values()]
    foreign = [hook for hook in hooks if not is_from(hook, _OURS)]
    if "forward" in own and not {"_hf_hook", "_diffusers_hook"} & own.keys():
        foreign.append(own["forward"])
    if foreign:
        name = getattr(foreign[0], "__qualname__", type(foreign[0]).__name__)
        raise StateError(
            f"{layer} has a hook or a method of somebody's own ({name}), and a store cannot know what it "
            "does; take it off, write it as an Intervention with a spec, or leave out store"
        )


def is_from(thing: Any, libraries: tuple[str, ...]) -> bool:
    """Whether a function or an object's class comes from one of some libraries."""
    while isinstance(thing, partial):
        thing = thing.func
    home = getattr(thing, "__module__", None) or type(thing).__module__
    return home.partition(".")[0] in libraries


def _formats(module: nn.Module) -> list[str]:
    return sorted({_name(t.dtype) for t in (*module.parameters(), *module.buffers())})


def _autocast(device: str) -> dict[str, Any]:
    cast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    return {"autocast": cast and _name(cast), "matmul": torch.get_float32_matmul_precision()}


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
