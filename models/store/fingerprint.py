"""What weights are, as a hash: of one tensor, and of a whole model.

The hash of a model is needed with every result that is kept, so it is cached. It is taken again where torch
counts a write (``tensor._version``), where a tensor is another one, or where some of the values, read at each
call, are different: fused optimizers and ``tensor.data`` write without being counted.
"""

from __future__ import annotations

import hashlib
import json
import os
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn

from ..errors import StateError
from ..places.unchanged import ADAPTERS, n_writes

if TYPE_CHECKING:
    from ..base import Model

SPOTS = 8
"""Values of each tensor that are compared at each call, evenly spread."""

POOL_BYTES = 2**25
"""From here on threads are worth their while; an interrupt while they start may hang Python's own pools."""

State: TypeAlias = tuple[int, int, torch.dtype, torch.Size]
"""How a tensor was: its id, torch's count of writes, number format, shape."""


@dataclass(frozen=True, eq=False)
class _Record:
    """The hash of one model, those of its tensors, and how all of it was when they were taken."""

    states: Mapping[str, State]
    alive: Sequence[weakref.ref[Tensor]]
    spots: Mapping[tuple[str, torch.dtype], bytes]
    others: Sequence[tuple[str, str]]
    hashes: Mapping[str, str]
    hash: str

    def valid(self, spots: Mapping[tuple[str, torch.dtype], bytes]) -> bool:
        """Whether a tensor in the same state is the same tensor, with the same values."""
        return self.spots == spots and all(ref() is not None for ref in self.alive)


_records: weakref.WeakKeyDictionary[Model, _Record] = weakref.WeakKeyDictionary()


def tensor_hash(tensor: Tensor) -> str:
    """Return a hash of a tensor's shape and values; equal values in another float format hash equally."""
    values = tensor.detach()
    if values.is_quantized:
        values = values.dequantize()
    if values.is_complex():
        values = torch.view_as_real(values)
    wide = torch.float64 if _needs_float64(values) else torch.float32
    values = values.to("cpu", wide if values.is_floating_point() else torch.int64).contiguous().reshape(-1)
    digest = hashlib.sha256(json.dumps(list(tensor.shape)).encode())
    digest.update(values.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def network_hash(tensors: Mapping[str, Tensor]) -> str:
    """Return a hash of named tensors, as ``state_dict()`` gives them: of a network that is no model."""
    lines = [
        f"{name} {what}" for name, what in sorted(zip(tensors, _hashes(list(tensors.values())), strict=True))
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _needs_float64(values: Tensor) -> bool:
    return values.dtype == torch.float64 and not torch.equal(values, values.float().double())


def _hashes(tensors: Sequence[Tensor]) -> list[str]:
    if sum(t.nbytes for t in tensors) < POOL_BYTES:
        return [tensor_hash(t) for t in tensors]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # hashing and casting leave Python's lock
        return list(pool.map(tensor_hash, tensors))


def adapters_hash(component: nn.Module) -> str | None:
    """Return a hash of the adapters (LoRAs) that act in a component beside its weights; None if none do."""
    found = []
    for name, module in component.named_modules():
        own = vars(module)
        if "scaling" not in own or "_active_adapter" not in own or own.get("_disable_adapters"):
            continue
        active = own["_active_adapter"]
        for adapter in [active] if isinstance(active, str) else active:
            scale = own["scaling"].get(adapter, 0)
            if scale and adapter not in own.get("merged_adapters", ()):
                tensors = [
                    (n.split(".")[0], t) for n, t in module.named_parameters() if adapter in n.split(".")
                ]
                found.append([name, float(scale), sorted((n, tensor_hash(t)) for n, t in tensors)])
    return hashlib.sha256(json.dumps(sorted(found)).encode()).hexdigest() if found else None


def fingerprint(model: Model) -> str:
    """Return a hash of all that a model computes with: parameters and buffers of all its components.

    Adapters and edits that are active are weights too and change it; so do an adapter's scale and whether it
    is on. Equal values in another float format hash equally. Computed once; later calls only look whether
    something was written (about 3 ms for 640 tensors); weights that quantised layers keep packed are read
    each time.

    Raises:
        StateError: if weights are not in memory, or a layer keeps something that cannot be read.
    """
    tensors, others = _tensors_and_others(model.components)
    if _without_weights(model, tensors):
        return network_shapes(tensors)
    states = {name: _state(t) for name, t in tensors.items()}
    spots, record = _spots(tensors), _records.get(model)
    if record is not None and not record.valid(spots):
        record = None
    if record is not None and record.states == states and record.others == others:
        return record.hash
    old = {n: record.hashes[n] for n, s in states.items() if record.states.get(n) == s} if record else {}
    new = {name: t for name, t in tensors.items() if name not in old}
    hashes = old | dict(zip(new, _hashes(list(new.values())), strict=True))
    lines = [f"{name} {what}" for name, what in sorted([*hashes.items(), *others])]
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    alive = [weakref.ref(t) for t in tensors.values()]
    _records[model] = _Record(states, alive, spots, others, hashes, digest)
    return digest


def _without_weights(model: Model, tensors: Mapping[str, Tensor]) -> bool:
    """Whether it is a mere plan of a model (``full_size``), not one whose weights are elsewhere just now."""
    offloaded = any(hasattr(m, "_hf_hook") for _, m in named_modules(model.components))
    return bool(tensors) and all(t.is_meta for t in tensors.values()) and not offloaded


def network_shapes(tensors: Mapping[str, Tensor]) -> str:
    """Return a hash of names and shapes, where there are no values."""
    lines = [f"{name} {tuple(t.shape)}" for name, t in sorted(tensors.items())]
    return hashlib.sha256("\n".join(["no values", *lines]).encode()).hexdigest()


def _state(t: Tensor) -> State:
    return id(t), n_writes(t), t.dtype, t.shape


def _tensors_and_others(
    components: Mapping[str, nn.Module],
) -> tuple[dict[str, Tensor], list[tuple[str, str]]]:
    """All parameters and buffers by full name; what adapters are set to, and what layers keep packed."""
    tensors: dict[str, Tensor] = {}
    others: list[tuple[str, str]] = []
    for name, module in named_modules(components):
        own = vars(module)  # getattr of what a module lacks is slow
        for kind in (own["_parameters"], own["_buffers"]):
            for n, t in kind.items():
                if t is not None:
                    _add(f"{name}.{n}", t, tensors, others)
        if "scaling" in own and "_active_adapter" in own:
            others.append((name, repr([own.get(key) for key in ADAPTERS])))
        if type(module)._save_to_state_dict is not nn.Module._save_to_state_dict:
            others += _packed(name, module)
    return tensors, others


def _add(name: str, t: Tensor, tensors: dict[str, Tensor], others: list[tuple[str, str]]) -> None:
    """Note a tensor; of one that is made of several (torchao, quanto) each, and how they are put together."""
    if type(t) in (Tensor, nn.Parameter) or not hasattr(t, "__tensor_flatten__"):
        tensors[name] = t
        return
    parts, how = t.__tensor_flatten__()
    others.append((name, f"{type(t).__qualname__} {tuple(t.shape)} {_plain(how)}"))
    for part in parts:
        _add(f"{name}.{part}", getattr(t, part), tensors, others)


def _plain(value: Any) -> str:
    """Settings as text, without addresses of objects."""
    if isinstance(value, Mapping):
        value = list(value.items())
    if isinstance(value, list | tuple):
        return f"({', '.join(map(_plain, value))})"
    plain = value is None or isinstance(value, str | bool | int | float | torch.dtype)
    return repr(value) if plain else type(value).__qualname__


def _packed(name: str, module: nn.Module) -> Iterable[tuple[str, str]]:
    """What a layer saves beside parameters and buffers: torch's quantised layers keep their weights so."""
    saved: dict[str, Any] = {}
    module._save_to_state_dict(saved, "", keep_vars=True)
    own = vars(module)
    for n in sorted(saved.keys() - own["_parameters"].keys() - own["_buffers"].keys()):
        yield f"{name}.{n}", _value_hash(f"{name}.{n}", saved[n])


def _value_hash(name: str, value: Any) -> str:
    if isinstance(value, Tensor):
        return tensor_hash(value)
    if isinstance(value, torch.ScriptObject):
        return _value_hash(name, value.__getstate__())
    if isinstance(value, Mapping):
        value = sorted(value.items())
    if isinstance(value, list | tuple):
        return hashlib.sha256(" ".join(_value_hash(name, v) for v in value).encode()).hexdigest()
    if value is None or isinstance(value, str | bytes | bool | int | float | torch.dtype):
        return repr(value)
    raise StateError(
        f"{name} holds a {type(value).__name__}, which cannot be read, so the model has no fingerprint; open "
        "it without quantisation"
    )


def named_modules(components: Mapping[str, nn.Module]) -> Iterator[tuple[str, nn.Module]]:
    """Like ``named_modules``, in a quarter of its time."""
    stack, seen = list(components.items()), set()
    while stack:
        name, module = stack.pop()
        if id(module) not in seen:
            seen.add(id(module))
            yield name, module
            stack += ((f"{name}.{n}", m) for n, m in module._modules.items() if m is not None)


@torch.no_grad()
def _spots(tensors: Mapping[str, Tensor]) -> dict[tuple[str, torch.dtype], bytes]:
    """Some values of every tensor, by component and number format; where they lie does not count."""
    groups: dict[tuple[str, torch.dtype, torch.device], list[Tensor]] = {}
    for name, t in tensors.items():
        if t.is_meta:
            raise StateError(
                f"{name} is not in memory, so the model has no fingerprint; use enable_model_cpu_offload, "
                "not enable_sequential_cpu_offload, or move the model to a device"
            )
        size = t.numel()
        few = (
            t.as_strided((min(SPOTS, size),), (max(1, size // SPOTS),))
            if t.is_contiguous()
            else t.reshape(-1)[:: max(1, size // SPOTS)][:SPOTS]
        )
        groups.setdefault((name.partition(".")[0], t.dtype, t.device), []).append(few)
    found: dict[tuple[str, torch.dtype], bytes] = {}
    for (part, dtype, _), few_of_each in groups.items():
        values = torch.cat(few_of_each).cpu().view(torch.uint8).numpy().tobytes()
        found[part, dtype] = found.get((part, dtype), b"") + values
    return found
