"""Whether a network is still what it was, without reading its weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from torch import Tensor, nn

ADAPTERS = ("scaling", "_active_adapter", "_disable_adapters", "merged_adapters")
"""What a layer of peft is set to: no tensors, but the same weights act otherwise with another setting."""

Condition: TypeAlias = list[tuple[object, object]]
"""Modules and tensors themselves, each with its adapters' settings, or with torch's count of writes."""


def condition(networks: Iterable[nn.Module]) -> Condition:
    """Return how some networks are now; see ``same``."""
    found: Condition = []
    for module in (m for network in networks for m in network.modules()):
        own = vars(module)
        found.append((module, repr([own.get(key) for key in ADAPTERS]) if "scaling" in own else ""))
        for tensors in (own["_parameters"], own["_buffers"]):
            found += [(t, n_writes(t)) for t in tensors.values() if t is not None]
    return found


def same(before: Condition, now: Condition) -> bool:
    """Return whether all modules and tensors are the same, none written to and no adapter set otherwise."""
    if len(before) != len(now):
        return False
    return all(a is b and how == other for (a, how), (b, other) in zip(before, now, strict=True))


def digest_of(owner: object, tensors: Sequence[Tensor], take: Callable[[], str]) -> str:
    """Return a hash of an object, taken again when one of its tensors may have been written to since."""
    writes = [n_writes(t) for t in tensors]
    kept = vars(owner).get("_digest")
    if kept is None or kept[0] != writes or -1 in writes:
        kept = vars(owner)["_digest"] = (writes, take())
    return str(kept[1])


def n_writes(tensor: Tensor) -> int:
    """Return torch's count of writes to a tensor; -1 where it counts none."""
    return -1 if tensor.is_inference() else tensor._version
