"""A direction at one site or several: what analyses find, and what steering adds or takes away."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..models.adapter import Adapter
from ..models.arguments import checked
from ..models.errors import NotFoundError, UsageError, WrongTypeError
from ..models.html import panel, table
from ..models.run.context import CallContext, When
from ..models.site import Site
from ..models.store.tensor_file import TensorFile
from ..models.suggest import near
from .intervene import Intervention, Spec

FILE = TensorFile("direction", 2, {"axes": {str: int | None}, "sites": [str]}, "Direction.save")


@dataclass(frozen=True, eq=False, init=False)
class Direction:
    """A vector over the channels at a site, or at each of several sites; it keeps its length.

    ``d + e``, ``d - e``, ``2 * d`` and ``-d`` are directions: ``(2 * d).steer(1.0)`` moves twice as far as
    ``d.steer(1.0)``. ``d.unit()`` has length 1. A direction over several sites (the two text encoders of
    Stable Diffusion XL) acts site by site: ``interventions=[part.steer(2.0) for part in d]``.

    Args:
        site: where; or, for several sites, the vector at each: ``Direction({site: vector, ...})``.
        vector: [channel], for one site.
        axis: the channel axis of the activation [sample, ...]: 1 for pictures, -1 for tokens. By default
            what ``model.layout(site)`` says of the model it acts in.

    Raises:
        ValueError: for a vector that is not one-dimensional, or is zero or not finite.

    >>> import torch
    >>> from denoscope.models.synthetic.tiny import tiny_sd
    >>> d = Direction("unet/mid.attn.0.0/cross_attn.out", torch.ones(16))
    >>> (2 * d).norm(), d.unit().norm()
    (8.0, 1.0)
    >>> run = trace(load(tiny_sd()), ["a cat"], seeds=[0], steps=2, interventions=[d.steer(0.5)])
    """

    vectors: Mapping[Site, Tensor]
    axes: Mapping[Site, int | None] = field(repr=False)

    @checked
    def __init__(
        self,
        site: Site | str | Mapping[Site, Tensor] | Mapping[str, Tensor],
        vector: Float[Tensor, " channel"] | None = None,
        axis: int | None = None,
    ) -> None:
        if isinstance(site, Site | str) == (vector is None):
            raise UsageError("a direction is Direction(site, vector), or Direction({site: vector, ...})")
        given: Any = {site: vector} if isinstance(site, Site | str) else site
        vectors: dict[Site, Tensor] = {Site(str(s)): v for s, v in given.items()}
        if not vectors:
            raise UsageError("a direction needs a vector at one site at least; at every site it is zero")
        for where, v in vectors.items():
            if not isinstance(v, Tensor):
                raise WrongTypeError(
                    f"the vector at {where} is a {type(v).__name__}; give a tensor [channel]"
                )
            norm = _norm(v)
            if v.ndim != 1 or not 0 < norm < math.inf:
                raise UsageError(
                    "a direction needs one finite, non-zero vector [channel] for each site; at "
                    f"{where} it has shape {tuple(v.shape)}, norm {norm}"
                )
        object.__setattr__(self, "vectors", vectors)
        object.__setattr__(self, "axes", dict.fromkeys(vectors, axis))

    def __repr__(self) -> str:
        parts = ", ".join(f"{s} [{len(v)}]" for s, v in self.vectors.items())
        return f"Direction({parts}; length {self.norm():.4g})"

    def _repr_html_(self) -> str:
        rows = [(s, len(v), _norm(v), self.axes[s]) for s, v in self.vectors.items()]
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
        """The vector [channel] of a direction at one site."""
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
        return Direction(site, self.vectors[site], self.axes[site])

    # algebra ------------------------------------------------------------------------------------------

    def __add__(self, other: Direction) -> Direction:
        if not isinstance(other, Direction):
            return NotImplemented
        for site in set(self.vectors) & set(other.vectors):
            a, b = self.vectors[site], other.vectors[site]
            if a.shape != b.shape or self.axes[site] != other.axes[site]:
                raise UsageError(
                    f"the directions differ at {site}: {len(a)} and {len(b)} channels, "
                    f"on axes {self.axes[site]} and {other.axes[site]}"
                )
        both = {
            s: self.vectors[s] + other.vectors[s] if s in self.vectors and s in other.vectors else v
            for s, v in {**self.vectors, **other.vectors}.items()
        }
        left = {s: v for s, v in both.items() if bool((v != 0).any())}  # where they cancel, nothing acts
        return _placed(left, {**self.axes, **other.axes})

    def __mul__(self, factor: float) -> Direction:
        if not isinstance(factor, Real):
            return NotImplemented
        return _placed({s: float(factor) * v for s, v in self.vectors.items()}, self.axes)

    __rmul__ = __mul__

    def __neg__(self) -> Direction:
        return -1 * self

    def __sub__(self, other: Direction) -> Direction:
        return self + -other if isinstance(other, Direction) else NotImplemented

    def norm(self) -> float:
        """Return the Euclidean length, over all sites together."""
        return math.hypot(*(_norm(v) for v in self.vectors.values()))

    def unit(self) -> Direction:
        """Return the direction of length 1, over all sites together."""
        return 1 / self.norm() * self

    # in a model ---------------------------------------------------------------------------------------

    @checked
    def at(self, model: Adapter) -> Direction:
        """Return the direction with the channel axes that the sites have in a model, counted from the end.

        Raises:
            LookupError: if the model has no such site, or does not know its axes.
            ValueError: at a site without channels (attention probabilities).
        """
        return _placed(self.vectors, {s: _axis(model, s) if a is None else a for s, a in self.axes.items()})

    @checked
    def component(self, x: Tensor) -> Tensor:
        """Return how far x points along the direction, ``x·v / |v|``; the channel axis is kept, of size 1.

        Raises:
            ValueError: if the direction spans several sites, does not fit x, or does not know its axis
                (``d.at(model)`` does).
        """
        return self.unit()._dot(x)

    @checked
    def steer(self, alpha: float, when: When = When()) -> Intervention:
        """Add ``alpha`` times the direction, as long as it is.

        Raises:
            ValueError: if alpha is not finite, or the direction spans several sites.
        """
        if not math.isfinite(alpha):
            raise UsageError(f"alpha is {alpha}; it is a finite number: how far to move along the direction")
        does = _Move(self, lambda d, x: x + alpha * d._along(x))
        return _Along(self.site, does, when, self._spec("steer", alpha=alpha))

    @checked
    def ablate(self, when: When = When()) -> Intervention:
        """Project the direction out: ``x - (x·u) u`` with ``u = v / |v|``.

        Raises:
            ValueError: if the direction spans several sites.
        """
        does = _Move(self.unit(), lambda u, x: x - u._dot(x) * u._along(x))
        return _Along(self.site, does, when, self._spec("ablate"))

    def _spec(self, kind: str, **numbers: float) -> Spec:
        return Spec(kind, {"vector": self.vector, "axis": self.axes[self.site], **numbers})

    def _dot(self, x: Tensor) -> Tensor:
        along = self._along(x)
        return (x * along).sum(self.axes[self.site] or 0, keepdim=True)

    def _along(self, x: Tensor) -> Tensor:
        axis, n = self.axes[self.site], len(self.vector)
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
        shape = [1] * x.ndim
        shape[axis] = n
        return self.vector.to(x).view(shape)

    # on disk ------------------------------------------------------------------------------------------

    @checked
    def save(self, path: str | Path) -> None:
        """Write one safetensors file, with the axes in its header; it is whole, or not there.

        Raises:
            OSError: if it cannot be written; an older file stays as it was.
        """
        axes = {str(site): axis for site, axis in self.axes.items()}
        flat = {str(site): v for site, v in self.vectors.items()}
        FILE.write(Path(path), flat, {"axes": axes, "sites": list(flat)})

    @staticmethod
    @checked
    def load(path: str | Path) -> Direction:
        """Read a direction.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if the file is damaged, or something else than a direction.
        """
        flat, about = FILE.read(Path(path))
        if not set(flat) == set(about["axes"]) == set(about["sites"]):
            raise FILE.damaged(Path(path), f"it holds {sorted(flat)} and tells of {about['sites']}")
        axes = {Site(site): axis for site, axis in about["axes"].items()}
        return _placed({Site(site): flat[site] for site in about["sites"]}, axes)


def _placed(vectors: Mapping[Site, Tensor], axes: Mapping[Site, int | None]) -> Direction:
    made = Direction(vectors)
    object.__setattr__(made, "axes", {s: axes[s] for s in vectors})
    return made


def _norm(v: Tensor) -> float:
    return float(torch.linalg.vector_norm(v.double()))


def _axis(model: Adapter, site: Site) -> int:
    layout = model.layout(site)
    if layout.channel_axis is None:
        raise UsageError(f"{site} has axes {layout.axes}, so no channels for a direction to act on")
    return layout.channel_axis - len(layout.axes) - 1


@dataclass(frozen=True, eq=False)
class _Move:
    """What happens to an activation along a direction."""

    direction: Direction
    act: Callable[[Direction, Tensor], Tensor]

    def __call__(self, x: Tensor, _: CallContext) -> Tensor:
        return self.act(self.direction, x)


@dataclass(frozen=True)
class _Along(Intervention):
    """An intervention that learns its channel axis from the model it acts in."""

    fn: _Move

    def parts(self, model: Adapter) -> tuple[Intervention, ...]:
        placed = _Move(self.fn.direction.at(model), self.fn.act)
        return (Intervention(self.site, placed, self.when, self.spec),)
