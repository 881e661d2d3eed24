"""A vector over the activation at a site: components along it, moves along it, and gates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ...models.adapter import Adapter
from ...models.errors import UsageError
from ...models.run.context import CallContext
from ...models.site import Site
from ...models.store.fingerprint import fingerprint
from ..intervene import Intervention
from .token_rows import TokenRows

Act: TypeAlias = Callable[[Tensor, Tensor, int], Tensor]
"""From an activation, the vector over it, and the channel axis to the new activation."""


@dataclass(frozen=True, eq=False)
class Along:
    """A vector at one site.

    Args:
        site: where.
        vector: [channel]; or [row, channel], one for each kind of the text's rows.
        axis: the channel axis of the activation; None until a model told it.
        rows: which kinds of rows the vectors are for.
    """

    site: Site
    vector: Tensor
    axis: int | None
    rows: TokenRows | None = None

    def at(self, model: Adapter) -> Along:
        """Return it with the axis that its site has in a model, counted from the end.

        Raises:
            LookupError: if the model has no such site, or does not know its axes.
            ValueError: at a site without channels; and for rows of a text at a site that has no text.
        """
        layout = model.layout(self.site)
        if layout.channel_axis is None:
            raise UsageError(f"{self.site} has axes {layout.axes}, so no channels for a direction to act on")
        if self.rows and (layout.axes != ("token", "channel") or layout.text is None):
            raise UsageError(
                f"{self.site} has axes {layout.axes}{'' if layout.text else ', none of them the text'}; a "
                f"direction of the rows {self.rows.kinds} acts where the text's tokens are, such as "
                f"{model.input_site.component}/in/text"
            )
        axis = layout.channel_axis - len(layout.axes) - 1
        return replace(self, axis=axis if self.axis is None else self.axis)

    def over(self, x: Tensor, context: CallContext | None = None) -> Tensor:
        """Return the vector as it lies over an activation; 0 at rows that are not meant.

        Raises:
            ValueError: if it does not fit, or the axis is not known.
        """
        axis, n = self.axis, self.vector.shape[-1]
        if axis is None:
            raise UsageError(
                f"which axis of {self.site} holds the channels is known to the model alone; write "
                "direction.at(model), or name it: Direction(site, vector, axis=1) for pictures, -1 for tokens"
            )
        channels = x.shape[axis] if -x.ndim <= axis < x.ndim else "none"
        if channels != n:
            raise UsageError(
                f"the direction at {self.site} has {n} channels, but axis {axis} of the "
                f"activation {tuple(x.shape)} has {channels}"
            )
        if self.rows:
            return self._of_rows(x, context, self.rows)
        shape = [1] * x.ndim
        shape[axis] = n
        return self.vector.to(x).view(shape)

    def _of_rows(self, x: Tensor, context: CallContext | None, rows: TokenRows) -> Tensor:
        prompts = () if context is None else context.prompts
        if len(prompts) != len(x):
            raise UsageError(f"which rows of {self.site} are meant is known inside a run alone")
        index = rows.index(prompts).to(x.device)
        if index.shape[1] != x.shape[1] or int(index.max()) >= len(self.vector):
            raise UsageError(
                f"the direction at {self.site} holds {len(self.vector)} rows of {rows.kinds}, which do not "
                f"fit {x.shape[1]} tokens ({index.shape[1]} known); it is of a model with other encoders"
            )
        vector = self.vector.to(x)
        return torch.cat([vector.new_zeros(1, vector.shape[1]), vector])[index + 1]

    def unit(self) -> Along:
        """Return it with vectors of length 1."""
        norm = torch.linalg.vector_norm(self.vector.double(), dim=-1, keepdim=True)
        return replace(self, vector=self.vector * torch.where(norm > 0, 1 / norm, 0).to(self.vector))

    def dot(self, x: Tensor, context: CallContext | None = None) -> Tensor:
        """Return ``x·v``; the channel axis is kept, of size 1."""
        return (x * self.over(x, context)).sum(self.axis or 0, keepdim=True)

    def mean_component(self, x: Tensor, context: CallContext | None = None) -> Tensor:
        """Return ``x·v / |v|`` of each sample, as a mean over its places; of rows, over those meant."""
        unit = self.unit()
        found = unit.dot(x, context)
        if not self.rows:
            return found.flatten(1).mean(1)
        meant = (unit.over(x, context) != 0).any(-1, keepdim=True)
        return (found * meant).flatten(1).sum(1) / meant.flatten(1).sum(1).clamp(min=1)


@dataclass(frozen=True, eq=False)
class Gate:
    """Where something acts: where the activation is similar to a vector; ``direction.gate(above)`` makes one.

    Args:
        along: the vector, at the site where something acts.
        above: the cosine of activation and vector from which on the gate is open.
        whole: whether it is open or shut for a sample as a whole, by its mean activation, or place by place.
    """

    along: Along
    above: float
    whole: bool = False

    def open(self, x: Tensor, context: CallContext | None) -> Tensor:
        """Return where it is open; broadcasts over x, and is of size 1 along the channels."""
        axis, vector = self.along.axis or 0, self.along.over(x, context)
        if self.whole:
            over = [i for i in range(1, x.ndim) if i != axis % x.ndim]
            meant = (vector != 0).any(axis, keepdim=True).to(x)
            x = (x * meant).sum(over, keepdim=True) if over else x
            vector = vector.sum(over, keepdim=True) if over else vector
        return torch.cosine_similarity(x, vector.expand_as(x), axis).unsqueeze(axis) > self.above

    @property
    def told(self) -> dict[str, Any]:
        """As parameters of a Spec."""
        return {"gate": self.along.vector, "above": self.above, "whole": self.whole}


@dataclass(frozen=True, eq=False)
class Move:
    """What happens to an activation along a vector, where a gate is open.

    Args:
        along: the vector.
        act: what happens.
        gate: where; None is everywhere.
    """

    along: Along
    act: Act
    gate: Gate | None = None

    def __call__(self, x: Tensor, context: CallContext) -> Tensor | None:
        """Return the new activation; None, which leaves it to the bit, where the gate is shut altogether."""
        open_ = None if self.gate is None else self.gate.open(x, context)
        if open_ is not None and not bool(open_.any()):
            return None
        new = self.act(x, self.along.over(x, context), self.along.axis or 0)
        return new if open_ is None else torch.where(open_, new, x)


@dataclass(frozen=True)
class Moving(Intervention):
    """An intervention that learns its channel axis from the model it acts in; ``about`` its direction."""

    fn: Move
    about: Mapping[str, Any] = field(default_factory=dict)

    def parts(self, model: Adapter) -> tuple[Intervention, ...]:
        """Return what it is in one model.

        Raises:
            ValueError: for a direction that was found in a model of another name, with other weights; an
                edited one keeps its name.
        """
        check_found_in(self.about, model)
        gate = self.fn.gate
        gate = None if gate is None else replace(gate, along=gate.along.at(model))
        placed = Move(self.fn.along.at(model), self.fn.act, gate)
        return (Intervention(self.site, placed, self.when, self.spec),)


def check_found_in(about: Mapping[str, Any], model: Adapter) -> None:
    """Raise UsageError for what was found in another model."""
    known, name = about.get("weights"), about.get("model")
    if known is None or name == model.name or known == fingerprint(model):  # type: ignore[arg-type]
        return
    raise UsageError(
        f"the direction was found in {name!r} and would act in {model.name!r}, which has other weights; find "
        "it anew there, or, to try what it does nevertheless: direction.noted(weights=None)"
    )


def added(strength: float) -> Act:
    """Add so many times the vector."""
    return lambda x, v, _: x + strength * v


def clamped(level: float) -> Act:
    """Set the component along the vector to so many times its length."""

    def act(x: Tensor, v: Tensor, axis: int) -> Tensor:
        square = (v * v).sum(axis, keepdim=True)
        own = (x * v).sum(axis, keepdim=True) / square.where(square > 0, 1)  # rows that are not meant are 0
        return x + (level - own) * v

    return act


def projected_out(x: Tensor, v: Tensor, axis: int) -> Tensor:
    """Take away what lies along the vector, of length 1."""
    return x - (x * v).sum(axis, keepdim=True) * v
