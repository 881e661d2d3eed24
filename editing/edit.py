"""A change of weights as a value: look at it, add it, scale it, save it, apply it, take it back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from ..models.arguments import check_fields, checked
from ..models.base import Model
from ..models.drawn import Figure, figure
from ..models.errors import UsageError, WrongTypeError
from ..models.html import panel, table
from ..models.load import opened
from ..models.places.parameters import canonical
from ..models.store.canonical import json_hash
from ..models.store.fingerprint import tensor_hash
from ..models.store.provenance import provenance
from ..models.undo import Undo
from . import edit_file, weights
from .base import base_of, same_base
from .lowrank import Delta, LowRank, add, spectrum, tensors

FORMATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True, eq=False)
class Edit:
    """A change of some weights of one model. Methods make edits; ``Edit.of`` makes one by hand.

    ``e + f``, ``e - f``, ``0.5 * e`` and ``-e`` are edits; two edits are equal if they change the same
    weights by the same amounts, held in the same way (factors, or the full tensor); ``e + f == f + e``. An
    edit acts on the very weights it was made for, in any number format, and on no others.

    Args:
        deltas: for each parameter, by full name (``text_encoder.encoder...weight``), what is added to it.
        base: for each of them, what it was made for: fingerprint of the weight, its roundings, adapters.
        note: where the edit comes from: method, requests, model, versions. JSON.

    Raises:
        ValueError: if deltas and base name different weights, or a delta is empty, not finite or not of
            floating point numbers of at least 16 bits.
        TypeError: if the note is no JSON.

    >>> import torch
    >>> from denoscope.models.synthetic.tiny import tiny_sd
    >>> model = load(tiny_sd())
    >>> name, weight = next(iter(model.weights("text_encoder/layer.0/self_attn.out").items()))
    >>> edit = Edit.of(model, {name: -weight.detach()})
    >>> with edit.applied(model):
    ...     float(weight.detach().abs().max())
    0.0
    >>> bool(weight.detach().abs().max() > 0)
    True
    """

    deltas: Mapping[str, Delta]
    base: Mapping[str, str]
    note: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.deltas or set(self.deltas) != set(self.base):
            raise UsageError(
                f"an edit needs deltas and their base for the same weights; got {sorted(self.deltas)} and "
                f"{sorted(self.base)}. Edit.of(model, deltas) fills in the base"
            )
        object.__setattr__(self, "deltas", {canonical(n): _still(n, d) for n, d in self.deltas.items()})
        object.__setattr__(self, "base", {canonical(n): hash_ for n, hash_ in self.base.items()})
        object.__setattr__(self, "note", _json(self.note))

    @classmethod
    @checked
    def of(cls, model: Model, deltas: Mapping[str, Delta], **note: Any) -> Edit:
        """Make an edit for a model's weights as they are now; nothing is changed.

        Raises:
            LookupError: if the model has no such parameter; the message names near misses.
            ValueError: if a delta does not have its parameter's shape, or two names are one weight.
        """
        for name, delta in deltas.items():
            shape = tuple(model.parameter(name).shape)
            if tuple(delta.shape) != shape:
                raise UsageError(
                    f"the change of {name} has shape {tuple(delta.shape)}, the weight has {shape}"
                )
        return cls(deltas, base_of(model, deltas), {**note, **provenance(model)})

    # a value ------------------------------------------------------------------------------------------

    def __add__(self, other: Edit) -> Edit:
        if not isinstance(other, Edit):
            return NotImplemented
        both = [n for n in self.deltas if n in other.deltas]
        wrong = [n for n in both if not same_base(self.base[n], other.base[n])]
        if wrong:
            raise UsageError(
                f"the edits were made for different weights of {wrong[0]} ({self.model!r} and "
                f"{other.model!r}); make both on the same unedited model"
            )
        deltas = {**self.deltas, **other.deltas, **{n: add(self.deltas[n], other.deltas[n]) for n in both}}
        parts = sorted([*self._parts(), *other._parts()], key=json_hash)  # e + f is f + e
        note = {"method": "sum", "model": min(self.model, other.model), "parts": parts}
        both_bases = [(n, b) for e in (self, other) for n, b in e.base.items()]
        return Edit(deltas, dict(sorted(both_bases, key=lambda pair: len(pair[1]))), note)

    def __mul__(self, factor: float) -> Edit:
        if not isinstance(factor, int | float):
            return NotImplemented
        note = {**self.note, "scale": factor * self.note.get("scale", 1)}
        return Edit({n: factor * d for n, d in self.deltas.items()}, self.base, note)

    __rmul__ = __mul__

    def __neg__(self) -> Edit:
        return -1 * self

    def __sub__(self, other: Edit) -> Edit:
        return self + -other

    def _parts(self) -> list[Mapping[str, Any]]:
        flat = "parts" in self.note and "scale" not in self.note
        return list(self.note["parts"]) if flat else [self.note]

    @cached_property
    def id(self) -> str:
        """A hash of what is changed, from what, and by how much; the note does not count."""
        digest = hashlib.sha256()
        for name, delta in sorted(self.deltas.items(), key=lambda item: item[0]):
            prints = [tensor_hash(t) for t in tensors(delta).values()]
            digest.update(json.dumps([name, self.base[name], prints]).encode())
        return digest.hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Edit) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    # to look at ---------------------------------------------------------------------------------------

    @property
    def model(self) -> str:
        """Name of the model the edit was made for."""
        return str(self.note.get("model", "unknown"))

    def size(self) -> int:
        """Return how many single numbers of the model are touched."""
        return sum(d.shape.numel() for d in self.deltas.values())

    def to_frame(self) -> pd.DataFrame:
        """Return a table of the touched weights, by name, and of how each is changed.

        Shape and size of the weight; numerical ``rank`` of the change; ``directions``: how many of them hold
        99 % of the square of its Frobenius ``norm``; ``energy_5`` and ``energy_20``: what share of it the
        first 5 and 20 hold.
        """
        rows = []
        for name, d in self.deltas.items():
            s = spectrum(d)
            held = s.rank, s.directions(0.99), s.energy(5), s.energy(20)
            rows.append((name, tuple(d.shape), d.shape.numel(), *held, s.norm))
        columns = ["weight", "shape", "size", "rank", "directions", "energy_5", "energy_20", "norm"]
        return pd.DataFrame(rows, columns=columns).set_index("weight")

    def __repr__(self) -> str:
        requests = ", ".join(f"{a} -> {b}" for p in self._parts() for a, b in p.get("requests", {}).items())
        what = f"{self.note.get('method', 'by hand')}{': ' + requests if requests else ''}"
        what = what if len(what) <= 80 else f"{what[:77]}..."
        scale = f"{self.note['scale']:g} x " if "scale" in self.note else ""
        where = next(iter(self.deltas)) if len(self.deltas) == 1 else f"{len(self.deltas)} weights"
        return f"Edit({scale}{what}; {self.size():,} numbers in {where}; for {self.model!r})"

    def _repr_html_(self) -> str:
        frame = self.to_frame()
        return panel(repr(self), table(["weight", *frame.columns], frame.itertuples()))

    def plot(self) -> Figure:
        """Return bars of how far each weight moves, ``analysis.plots.weight_bars``."""
        return figure("weight_bars", self)

    # on a model ---------------------------------------------------------------------------------------

    @checked
    @contextmanager
    def applied(self, model: Model | Any) -> Iterator[None]:
        """Apply for the length of a with block; the weights come back to the bit, error or not.

        ``model`` may be a diffusers pipeline as well, here and in ``apply`` and ``revert``.
        Edits that were put on top of the same weights inside the block, and not taken back, go as well.

        Raises:
            ValueError: as ``apply``.
            RuntimeError: as ``revert``, at the end of the block.
        """
        model = opened(model)
        with Undo() as undo:
            if not weights.carries(model, self):  # else it is not ours to take off
                params = {name: model.parameter(name) for name in self.deltas}
                undo.add(partial(weights.unwind, self, model, params))
            weights.apply(self, model)
            yield

    @checked
    def apply(self, model: Model | Any) -> None:
        """Change the model's weights: all of the edit, or nothing.

        Computed in float64 and rounded once to the weight's number format. An edit that was made for the
        weights as they are with this edit may follow on top of it; it comes off first.

        Raises:
            ValueError: if the weights are not those the edit was made for, or are edited already.
        """
        weights.apply(self, opened(model))

    @checked
    def revert(self, model: Model | Any) -> None:
        """Take the edit back: the weights are again, to the bit, what they were before.

        Raises:
            ValueError: if the edit is not applied to this model, or another one lies on top of it.
            RuntimeError: if some of its weights were replaced or written to meanwhile (a LoRA fused, other
                weights loaded). These are left as they are, and the others taken back.
        """
        weights.revert(self, opened(model))

    # on disk ------------------------------------------------------------------------------------------

    @checked
    def save(self, path: str | Path) -> None:
        """Write one safetensors file, with base and note in its header; it is whole, or not there.

        Raises:
            OSError: if it cannot be written (disk full, read-only, no such folder); an older file stays as it
                was.
        """
        edit_file.write(Path(path), self.deltas, self.base, self.note)

    @classmethod
    @checked
    def load(cls, path: str | Path) -> Edit:
        """Read an edit.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if the file is truncated, pickled, or something else than an edit.
        """
        deltas, base, note = edit_file.read(Path(path))
        return cls(deltas, base, note)


def _still(name: str, delta: Delta) -> Delta:
    """The change in main memory, as nobody else holds it; half precision is kept in float32."""
    kept = {}
    for part, t in tensors(delta).items():
        if t.dtype not in FORMATS or not t.numel():
            raise UsageError(
                f"the change of {name} has {part} of {t.dtype}, shape {tuple(t.shape)}; give one that is "
                "not empty, of floating point numbers of at least 16 bits: delta.double()"
            )
        if not bool(t.isfinite().all()):
            raise UsageError(f"the change of {name} holds NaN or infinite values")
        kept[part] = t.detach().cpu().to(torch.float64 if t.dtype == torch.float64 else torch.float32)
    return LowRank(**kept) if isinstance(delta, LowRank) else kept["delta"]


def _json(note: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return dict(json.loads(json.dumps(dict(note), allow_nan=False)))
    except (TypeError, ValueError, RecursionError) as error:
        raise WrongTypeError(
            f"the note is no JSON: {error}; give text, finite numbers, lists or mappings of them"
        ) from error
