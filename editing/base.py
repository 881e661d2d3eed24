"""What an edit is for: the fingerprint of each weight, of its roundings, and of the adapters beside it.

    HASH[ float16 HASH][ bfloat16 HASH][ beside adapters HASH]

A model is often opened in half precision, so an edit made in float32 is for the rounded weights too, and one
made in half precision for the weights before rounding.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import torch
from torch import Tensor

from ..models.base import Model
from ..models.errors import UsageError
from ..models.formats import is_quantised
from ..models.places.refuse import refuse_absent
from ..models.store.fingerprint import adapters_hash, tensor_hash

_HASH = "[0-9a-f]{64}"
BASE = re.compile(
    rf"(?P<exact>{_HASH})( float16 (?P<float16>{_HASH}))?( bfloat16 (?P<bfloat16>{_HASH}))?"
    rf"( beside adapters (?P<adapters>{_HASH}))?"
)
ROUNDINGS = (torch.float16, torch.bfloat16)


def base_of(model: Model, names: Iterable[str]) -> dict[str, str]:
    """Return what an edit of some weights is for.

    Raises:
        LookupError: if the model has no such parameter.
        ValueError: if a weight is quantised, two names are one weight, or what lies in memory is not what
            the model computes with.
    """
    params = {name: model.parameter(name) for name in names}
    twins: dict[int, str] = {}
    for name, p in params.items():
        if is_quantised(p):
            raise UsageError(
                f"{name} is quantised ({type(p).__name__} of {p.dtype}), and an edit could not be taken back "
                "to the bit; open the model without quantisation, edit it, and quantise afterwards"
            )
        if id(p) in twins:
            raise UsageError(f"{twins[id(p)]} and {name} are one and the same weight; give its change once")
        twins[id(p)] = name
    components = {name.partition(".")[0] for name in params}
    for part in components:
        refuse_absent(part, model.components[part])
    beside = {part: adapters_hash(model.components[part]) for part in components}
    return {name: _weight(p) + _beside(beside[name.partition(".")[0]]) for name, p in params.items()}


def same_weight(a: str, b: str) -> bool:
    """Return whether two bases are of one weight, or one is of a rounding of the other's."""
    (one, more), (two, others) = _values(a), _values(b)
    return one == two or one in others or two in more


def same_base(a: str, b: str) -> bool:
    """Return whether two bases are of one weight, with the same adapters beside it."""
    return same_weight(a, b) and _named(a).get("adapters") == _named(b).get("adapters")


def _weight(p: Tensor) -> str:
    p = p.detach()
    wide = p.dtype in (torch.float32, torch.float64)
    rounded = {str(d).removeprefix("torch."): tensor_hash(p.to(d)) for d in ROUNDINGS} if wide else {}
    return " ".join([tensor_hash(p), *(f"{name} {hash_}" for name, hash_ in rounded.items())])


def _beside(adapters: str | None) -> str:
    return "" if adapters is None else f" beside adapters {adapters}"


def _named(base: str) -> dict[str, str | None]:
    found = BASE.fullmatch(base)
    return found.groupdict() if found else {"exact": base}


def _values(base: str) -> tuple[str | None, set[str | None]]:
    named = _named(base)
    return named["exact"], {named.get("float16"), named.get("bfloat16")} - {None}
