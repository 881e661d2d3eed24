"""A direction at one site or several: what analyses find, and what steering adds or takes away."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from ..models.adapter import Adapter
from ..models.arguments import checked
from ..models.errors import NotFoundError, UsageError
from ..models.html import panel, table
from ..models.run.context import When
from ..models.site import Site
from ..models.suggest import near
from .directions import direction_file
from .directions.along import Along, Gate, Move, Moving, added, clamped, projected_out
from .directions.token_rows import TokenRows
from .directions.vectors_by_site import VectorsBySite, check_vector, length
from .intervene import Intervention, Spec


@dataclass(frozen=True, eq=False, init=False)
class Direction(VectorsBySite):
    """A vector over the channels at a site, or at each of several sites; it keeps its length.

    ``d + e``, ``d - e``, ``2 * d`` and ``-d`` are directions: ``(2 * d).steer(1.0)`` moves twice as far as
    ``d.steer(1.0)``. ``d.unit()`` has length 1; lengths and products are over all sites together. A direction
    over several sites acts site by site: ``interventions=[part.steer(2.0) for part in d]``.

    Args:
        site: where; or, for several sites, the vector at each: ``Direction({site: vector, ...})``.
        vector: [channel], for one site; with ``rows`` [row, channel], one for each kind of row.
        axis: the channel axis of the activation [sample, ...]: 1 for pictures, -1 for tokens. By default
            what ``model.layout(site)`` says of the model it acts in.
        rows: which rows of a text the vectors [row, channel] are for; those [channel] act everywhere.
        about: where it came from, as JSON: what was measured, and in what weights.

    Raises:
        ValueError: for vectors of other shapes, or that are zero or not finite.

    >>> import torch
    >>> from denoscope.models.synthetic.tiny import tiny_sd
    >>> d = Direction("unet/mid.attn.0.0/cross_attn.out", torch.ones(16))
    >>> (2 * d).norm(), d.unit().norm()
    (8.0, 1.0)
    >>> run = trace(load(tiny_sd()), ["a cat"], seeds=[0], steps=2, interventions=[d.steer(0.5)])
    """

    @checked
    def __init__(
        self,
        site: Site | str | Mapping[Site, Tensor] | Mapping[str, Tensor],
        vector: Float[Tensor, "*row channel"] | None = None,
        axis: int | None = None,
        rows: TokenRows | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        if isinstance(site, Site | str) == (vector is None):
            raise UsageError("a direction is Direction(site, vector), or Direction({site: vector, ...})")
        given: Any = {site: vector} if isinstance(site, Site | str) else site
        vectors: dict[Site, Tensor] = {Site(str(s)): v for s, v in given.items()}
        if not vectors:
            raise UsageError("a direction needs a vector at one site at least; at every site it is zero")
        for where, v in vectors.items():
            check_vector(where, v, rows)
        object.__setattr__(self, "vectors", vectors)
        object.__setattr__(self, "axes", dict.fromkeys(vectors, axis))
        object.__setattr__(self, "rows", rows)
        object.__setattr__(self, "about", dict(about or {}))

    def __repr__(self) -> str:
        parts = ", ".join(f"{s} {list(v.shape)}" for s, v in self.vectors.items())
        whose = f"; rows {self.rows.kinds} of {self.rows.subject!r}" if self.rows else ""
        return f"Direction({parts}{whose}; length {self.norm():.4g})"

    def _repr_html_(self) -> str:
        rows = [(s, v.shape[-1], length(v), self.axes[s]) for s, v in self.vectors.items()]
        return panel(repr(self), table(("site", "channels", "length", "axis"), rows))

    # site by site -------------------------------------------------------------------------------------

    @property
    def sites(self) -> tuple[Site, ...]:
        """Where."""
        return tuple(self.vectors)

    @property
    def site(self) -> Site:
        """Where, of a direction at one site."""
        if len(self.vectors) > 1:
            raise UsageError(
                f"this direction spans {len(self)} sites ({', '.join(map(str, self.sites))}); take one at a "
                "time: [part.steer(1.0) for part in direction], or direction[site]"
            )
        return next(iter(self.vectors))

    @property
    def vector(self) -> Tensor:
        """The vector [channel] (or [row, channel]) of a direction at one site."""
        return self.vectors[self.site]

    def __len__(self) -> int:
        return len(self.vectors)

    def __iter__(self) -> Iterator[Direction]:
        return (self[site] for site in self.vectors)

    @checked
    def __getitem__(self, site: Site | str) -> Direction:
        site = Site(str(site))
        if site not in self.vectors:
            raise NotFoundError(f"the direction is not at {site}; {near(str(site), map(str, self.vectors))}")
        return self._with({site: self.vectors[site]})

    @checked
    def of(self, subject: str) -> Direction:
        """Return the same direction for the rows of one subject: ``"cook"``, or ``"cook:2"`` for the second.

        Raises:
            ValueError: if it is none of rows of a text.
        """
        if self.rows is None:
            raise UsageError(f"the direction at {self.sites[0]} acts at all places, so it has no subject")
        return self._made(self.vectors, self.axes, replace(self.rows, subject=subject), self.about)

    @checked
    def noted(self, **about: Any) -> Direction:
        """Return the same direction with more told of it, in ``about``."""
        return self._made(self.vectors, self.axes, self.rows, {**self.about, **about})

    # in a model ---------------------------------------------------------------------------------------

    @checked
    def at(self, model: Adapter) -> Direction:
        """Return the direction with the channel axes that the sites have in a model, counted from the end.

        Raises:
            LookupError: if the model has no such site, or does not know its axes.
            ValueError: at a site without channels (attention probabilities); for rows of a text elsewhere.
        """
        axes = {part.site: part.along.at(model).axis for part in self}
        return self._made(self.vectors, axes, self.rows, self.about)

    @property
    def along(self) -> Along:
        """The vector of a direction at one site, as it lies over an activation."""
        rows = self.rows if self.vector.ndim == 2 else None
        return Along(self.site, self.vector, self.axes[self.site], rows)

    @checked
    def component(self, x: Tensor) -> Tensor:
        """Return how far x points along the direction, ``x·v / |v|``; the channel axis is kept, of size 1.

        Raises:
            ValueError: if the direction spans several sites, does not fit x, is of rows of a text, or does
                not know its axis (``d.at(model)`` does).
        """
        return self.unit().along.dot(x)

    @checked
    def gate(self, above: float, *, whole: bool = False) -> Gate:
        """Return a gate that is open where activations are similar to this direction.

        Args:
            above: the cosine from which on it is open, -1 to 1.
            whole: judge each sample by its mean activation, instead of place by place.

        Raises:
            ValueError: if above is no cosine, or the direction spans several sites.
        """
        if not -1 <= above <= 1:
            raise UsageError(f"above is {above}; it is a cosine, from -1 to 1")
        return Gate(self.along, above, whole)

    @checked
    def steer(
        self,
        strength: float,
        when: When = When(),
        *,
        steps: Collection[int] | None = None,
        gate: Gate | None = None,
    ) -> Intervention:
        """Add ``strength`` times the direction, as long as it is.

        Args:
            strength: how far.
            when: which steps, branch and samples.
            steps: short for ``When(steps=...)``: ``range(6, 20)`` starts late.
            gate: where it acts; where the gate is shut the activation stays as it is, to the bit.

        Raises:
            ValueError: if strength is not finite, the direction spans several sites, steps are given twice,
                or the gate is of another site.
        """
        _check_finite("strength", strength)
        act = Move(self.along, added(strength), gate)
        return self._moving(act, _when(when, steps), "steer", {"alpha": strength})

    @checked
    def ablate(
        self, when: When = When(), *, steps: Collection[int] | None = None, gate: Gate | None = None
    ) -> Intervention:
        """Project the direction out: ``x - (x·u) u`` with ``u = v / |v|``; arguments as ``steer``'s."""
        return self._moving(Move(self.along.unit(), projected_out, gate), _when(when, steps), "ablate", {})

    @checked
    def clamp(
        self,
        level: float,
        when: When = When(),
        *,
        steps: Collection[int] | None = None,
        gate: Gate | None = None,
    ) -> Intervention:
        """Set how far the activation points along the direction to ``level`` times its length.

        ``x + (level |v| - x·u) u`` with ``u = v / |v|``: what is there already does not add up; 0 is
        ``ablate``. Other arguments and errors as ``steer``'s.
        """
        _check_finite("level", level)
        act = Move(self.along, clamped(level), gate)
        return self._moving(act, _when(when, steps), "clamp", {"level": level})

    @checked
    def scheduled(
        self, strengths: Sequence[float], branch: str | None = "cond", *, gate: Gate | None = None
    ) -> tuple[Intervention, ...]:
        """Add a strength of its own at each step, ``[0, 0, 1.0, 0.5]``; where it is 0 nothing is done.

        Args:
            strengths: one for each step of the run, from the first on.
            branch: guidance branch; None is all.
            gate: as ``steer``'s.

        Raises:
            ValueError: for strengths that are not finite or all 0, and as ``steer``.
        """
        for strength in strengths:
            _check_finite("strength", strength)
        acting = {i: s for i, s in enumerate(strengths) if s}
        if not acting:
            raise UsageError(f"strengths are {list(strengths)}; at every step nothing would be done")
        return tuple(self.steer(s, When([i], branch), gate=gate) for i, s in acting.items())

    def _moving(self, move: Move, when: When, kind: str, numbers: Mapping[str, float]) -> Intervention:
        along, gate = move.along, move.gate
        if gate is not None and gate.along.site != self.site:
            raise UsageError(f"the gate looks at {gate.along.site}, and the direction acts at {self.site}")
        told: dict[str, Any] = {"vector": self.vector, "axis": self.axes[self.site], **numbers}
        if along.rows:
            told |= {"rows": list(along.rows.kinds), "subject": along.rows.subject}
        told |= {} if gate is None else gate.told
        return Moving(self.site, move, when, Spec(kind, told), self.about)

    # on disk ------------------------------------------------------------------------------------------

    @checked
    def save(self, path: str | Path) -> None:
        """Write one safetensors file, with axes, rows and provenance in its header; whole, or not there.

        Raises:
            OSError: if it cannot be written; an older file stays as it was.
            ValueError: if ``about`` is no JSON.
        """
        direction_file.write(Path(path), (dict(self.vectors), dict(self.axes), self.rows, self.about))

    @staticmethod
    @checked
    def load(path: str | Path, model: Adapter | None = None) -> Direction:
        """Read a direction.

        Args:
            path: a file that ``save`` wrote.
            model: the model it is for; one with other weights than those it was found in is refused.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if the file is damaged, or something else than a direction, or one of another model.
        """
        return Direction._made(*direction_file.read(Path(path), model))


def _check_finite(name: str, value: float) -> None:
    if not math.isfinite(value):
        raise UsageError(f"{name} is {value}; it is a finite number: how far to move along the direction")


def _when(when: When, steps: Collection[int] | None) -> When:
    if steps is None:
        return when
    if when.steps is not None:
        raise UsageError(f"steps are given twice: {steps!r}, and {when.steps!r} in when")
    return replace(when, steps=steps)
