"""Which activations a dictionary speaks of: a site, what is encoded there, and how a tensor becomes rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from jaxtyping import Float
from torch import Tensor

from ...models.adapter import Adapter
from ...models.arguments import check_fields, checked
from ...models.errors import UsageError
from ...models.run.context import TEXT
from ...models.site import Site

Kind: TypeAlias = Literal["state", "update", "transcoder"]
Kernel: TypeAlias = Literal["position", "map"]


@dataclass(frozen=True)
class Channels:
    """The channels that a dictionary is over.

    Args:
        site: what is reconstructed, and where edits act.
        axes: of one sample there, as in ``Layout``: ("channel", "height", "width").
        kind: ``"state"`` encodes the activation itself; ``"update"`` what a block adds, the activation less
            that at ``source`` (Surkov et al. 2024); ``"transcoder"`` encodes ``source``, predicts ``site``.
        source: the other site, with the same axes; None for ``"state"``.
        grid: None where a row is one position; where it is a whole map (a kernel as large as the map, Shi et
            al. 2025), the sizes of ``axes`` at ``site``.

    Raises:
        ValueError: for axes without channels, and a source that is missing or too many.
    """

    site: Site
    axes: tuple[str, ...]
    kind: Kind = "state"
    source: Site | None = None
    grid: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if self.axes.count("channel") != 1:
            raise UsageError(f"{self.site} has axes {self.axes}, so no channels for a dictionary to be over")
        if self.kind not in ("state", "update", "transcoder"):
            raise UsageError(f"kind is {self.kind!r}; it is 'state', 'update' or 'transcoder'")
        if (self.kind == "state") != (self.source is None):
            fix = (
                "leave source out"
                if self.kind == "state"
                else "name source, what goes into the block: '.../resid.pre' beside '.../resid.post'"
            )
            raise UsageError(f"kind is {self.kind!r} and source is {self.source}; {fix}")
        if self.source is not None and self.source.component != self.site.component:
            raise UsageError(
                f"{self.source} and {self.site} lie in two components, which do not run together"
            )
        if self.grid is not None and (len(self.grid) != len(self.axes) or self.kind == "transcoder"):
            raise UsageError(f"grid is {self.grid}; it has a size for each of {self.axes}, of one site alone")

    @classmethod
    @checked
    def of(
        cls,
        model: Adapter,
        site: Site | str,
        *,
        kind: Kind = "state",
        source: Site | str | None = None,
        grid: tuple[int, ...] | None = None,
    ) -> Channels:
        """Return those of a site in a model, whose layout says the axes.

        Raises:
            LookupError: if the model has no such site, or does not know its axes.
            ValueError: as above, and for a source that has other axes.
        """
        site = Site(str(site))
        own = None if source is None else Site(str(source))
        made = cls(site, model.layout(site).axes, kind, own, grid)
        if own is not None and model.layout(own) != model.layout(site):
            raise UsageError(
                f"{own} has axes {_told(model, own)} and {site} {_told(model, site)}; they have to be equal"
            )
        return made

    @property
    def sites(self) -> tuple[Site, ...]:
        """What has to be watched: the site, and the source where there is one."""
        return (self.site,) if self.source is None else (self.source, self.site)

    @property
    def has_steps(self) -> bool:
        """Whether the site is run at each step; text encoders are not."""
        return not self.site.component.startswith(TEXT)

    @property
    def kernel(self) -> Kernel:
        """What a row is: one position, or a whole map."""
        return "position" if self.grid is None else "map"

    def check(self, model: Adapter) -> None:
        """Raise LookupError or UsageError if a model has other axes there."""
        for site in self.sites:
            axes = model.layout(site).axes
            if axes != self.axes:
                raise UsageError(
                    f"the dictionary is over {site} with axes {self.axes}; in {model.name} it has {axes}"
                )

    def rows(self, x: Tensor) -> Float[Tensor, "... channel"]:
        """Return an activation [..., *axes] as rows: [..., *positions, channel], or [..., map]."""
        return as_rows(x, self.axes, self.kernel)

    def restored(self, rows: Float[Tensor, "... channel"]) -> Tensor:
        """Return rows as an activation [..., *axes]; the inverse of ``rows``."""
        place = self.axes.index("channel") - len(self.axes)
        if self.grid is None:
            return rows.movedim(-1, place)
        last = [n for n, axis in zip(self.grid, self.axes, strict=True) if axis != "channel"]
        size = self.grid[self.axes.index("channel")]
        return rows.reshape(*rows.shape[:-1], *last, size).movedim(-1, place)


def as_rows(x: Tensor, axes: tuple[str, ...], kernel: Kernel) -> Tensor:
    """Return an activation [..., *axes] with its channels last; in a map all axes count as channels.

    Raises:
        UsageError: if it has too few axes.
    """
    if x.ndim < len(axes):
        raise UsageError(f"an activation {tuple(x.shape)} was given, where [..., {', '.join(axes)}] is read")
    moved = x.movedim(axes.index("channel") - len(axes), -1)
    return moved if kernel == "position" else moved.flatten(x.ndim - len(axes))


def _told(model: Adapter, site: Site) -> str:
    layout = model.layout(site)
    return f"{layout.axes} on a grid {layout.grid}" if layout.grid else str(layout.axes)
