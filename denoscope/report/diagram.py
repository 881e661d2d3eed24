"""A picture of what a model is made of: its blocks and the kinds of sites in them, as SVG."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from jinja2 import Environment, PackageLoader, StrictUndefined

from ..models.base import Model
from ..models.site import Site
from ..models.sites import site_shapes

_WIDTH, _LINE, _GAP, _LETTERS = 330, 15, 10, 50
_TOP, _DEEPEST = 70, 1400


@dataclass(frozen=True)
class Row:
    """Blocks that look alike, one after another.

    Args:
        first: name of the first block.
        last: name of the last one.
        number: how many there are.
        lines: what is in each: ``self_attn: q k v probs z out``.
        stream: shape of the stream that enters, or of the first site.
    """

    first: str
    last: str
    number: int
    lines: tuple[str, ...]
    stream: tuple[int, ...]

    @property
    def name(self) -> str:
        """``block.0`` or ``block.0-27 (28)``."""
        return self.first if self.number == 1 else f"{self.first}-{self.last.split('.')[-1]} ({self.number})"

    @property
    def height(self) -> int:
        """Of the drawn box, in pixels."""
        return _LINE * (len(self.lines) + 1) + 12


def diagram(model: Model) -> str:
    """Return an SVG picture of a model: a column for each component, a box for each block.

    Blocks that look alike stand in one box. The numbers are the shape of one sample's stream as it enters.

    Args:
        model: an opened model; one of ``models.shapes.full_size`` will do.
    """
    placed = [c for name in dict.fromkeys(s.component for s in model.sites()) for c in _columns(model, name)]
    loader = PackageLoader("denoscope.report")
    page = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return page.get_template("diagram.svg.jinja").render(
        title=model.name,
        columns=list(enumerate(placed)),
        width=_WIDTH,
        line=_LINE,
        size=(20 + len(placed) * (_WIDTH + 20), max(c.bottom for c in placed) + 10),
    )


@dataclass(frozen=True)
class Column:
    """One column: the name of a component, and its boxes with their upper edges."""

    name: str
    kind: str
    boxes: tuple[tuple[Row, int], ...]

    @property
    def bottom(self) -> int:
        """Lower edge, in pixels."""
        row, top = self.boxes[-1]
        return top + row.height


def _columns(model: Model, component: str) -> Iterator[Column]:
    """The boxes of a component, in as many columns as it takes."""
    classes = type(model.components[component]).__mro__
    kind = next(c.__name__ for c in classes if not c.__name__.startswith("_"))
    boxes: list[tuple[Row, int]] = []
    rows, top = rows_of(model, component), _TOP
    total = sum(row.height + _GAP for row in rows)
    deepest = _TOP + total / math.ceil(total / _DEEPEST) + max(row.height for row in rows)
    for row in rows:
        if boxes and top + row.height > deepest:
            yield Column(component, kind, tuple(boxes))
            kind, boxes, top = "continued", [], _TOP
        boxes.append((row, top))
        top += row.height + _GAP
    yield Column(component, kind, tuple(boxes))


def rows_of(model: Model, component: str) -> list[Row]:
    """Return the blocks of a component in network order, those that look alike together."""
    shapes = site_shapes(model)
    blocks: dict[str, list[Site]] = {}
    for site in model.sites(f"{component}/**"):
        blocks.setdefault(site.block, []).append(site)
    described = [(name, _lines(sites), shapes[sites[0]]) for name, sites in blocks.items()]
    rows = []
    for _, alike in groupby(described, key=lambda d: (re.sub(r"\d+$", "", d[0]), *d[1:])):
        group = list(alike)
        rows.append(Row(group[0][0], group[-1][0], len(group), *group[0][1:]))
    return rows


def _lines(sites: Sequence[Site]) -> tuple[str, ...]:
    """One line for each stem and stream, wrapped: ``joint_attn@img: q_proj out``."""
    stems: dict[str, list[str]] = {}
    for site in sites:
        stem, _, part = site.kind.partition(".")
        stems.setdefault(f"{stem}@{site.stream}" if site.stream else stem, []).append(part or stem)
    lines = []
    for stem, parts in stems.items():
        line = f"{stem}:" if parts != [stem] else ""
        for part in parts:
            if len(line) + len(part) > _LETTERS:
                lines.append(line)
                line = "   "
            line += f" {part}"
        lines.append(line.removeprefix(" ") if line[0] == " " and line[1] != " " else line)
    return tuple(lines)
