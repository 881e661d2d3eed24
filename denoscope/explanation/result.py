"""What an explanation is as a value: numbers, maps, figures, and its page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from ..analysis.attribution.overlay import overlays
from ..analysis.stored import Stored
from ..models.arguments import checked
from ..models.drawn import Figure, figure
from ..models.errors import NotFoundError, UsageError
from ..models.html import frame_table, panel, pictures
from ..models.suggest import near
from ..report.page import written
from ..report.widgets import WithPage
from .kinds import DEFAULT_MAP, KINDS, PARTS
from .page import render

Z = 1.96
"""Standard errors on either side of a 95% interval."""


@dataclass(frozen=True, eq=False)
class Explanation(Stored, WithPage):
    """What each word of a prompt does to one picture.

    Args:
        data: ``nats`` and ``stderr`` [word], what a word tells given all others; ``maps`` [kind, word, y, x]
            (``kinds.KINDS``); ``attention`` [step, word, y, x]; ``picture`` [row, column, channel], uint8.
            Of two words or more also ``pair_nats`` and ``pair_stderr`` [pair, part] and ``pair_map`` [pair,
            part, y, x]; parts are those of a Decomposition. ``begins`` and ``ends`` [word]: characters of the
            prompt.
    """

    needed: ClassVar[frozenset[str]] = frozenset({"nats", "stderr", "maps", "attention", "picture", "prompt"})

    def __repr__(self) -> str:
        words = ", ".join(f"{r.word} {r.nats:.3g}" for r in self.to_frame().itertuples())
        return f"Explanation({self.prompt!r}: {words} nats; {len(self.pairs)} pairs)"

    def _repr_html_(self) -> str:
        frame = self.to_frame()
        first = self.data["maps"].sel(kind=DEFAULT_MAP).clip(min=0)
        scaled = first / first.max(("y", "x")).clip(min=1e-12)
        names = [f"{w}: {KINDS[DEFAULT_MAP].title}" for w in frame["word"]]
        return panel(
            repr(self),
            pictures(overlays(self.image, scaled), names, len(names)),
            frame_table(frame),
        )

    @property
    def prompt(self) -> str:
        """The prompt."""
        return str(self.data.attrs["prompt"])

    @property
    def pairs(self) -> list[str]:
        """The names of pairs, like ``"red + cat"``; none of one word alone."""
        return [str(p) for p in self.data["pair"].values] if "pair" in self.data.coords else []

    @property
    def image(self) -> Float[Tensor, "3 height width"]:
        """The picture in 0..1."""
        return torch.from_numpy(self.data["picture"].values).permute(2, 0, 1) / 255

    def to_frame(self) -> pd.DataFrame:
        """Return a table of words: nats given all others, their 95% interval, and where most, by default map.

        Columns: word, nats, low, high, y and x (cells of the map).
        """
        rows = []
        for one in self.data["word"].values:
            found = self.data.sel(word=one)
            nats, half = float(found["nats"]), Z * float(found["stderr"])
            heat = found["maps"].sel(kind=DEFAULT_MAP)
            y, x = divmod(int(heat.values.argmax()), heat.sizes["x"])
            rows.append((str(one), nats, nats - half, nats + half, y, x))
        return pd.DataFrame(rows, columns=["word", "nats", "low", "high", "y", "x"])

    def pairs_to_frame(self) -> pd.DataFrame:
        """Return a table of pairs and parts: nats and their 95% interval; empty for one word."""
        rows = []
        for pair in self.pairs:
            found = self.data.sel(pair=pair)
            for part in found["part"].values:
                nats, half = (float(found[n].sel(part=part)) for n in ("pair_nats", "pair_stderr"))
                rows.append((pair, str(part), nats, nats - Z * half, nats + Z * half))
        return pd.DataFrame(rows, columns=["pair", "part", "nats", "low", "high"])

    @checked
    def at(self, y: int, x: int, kind: str = DEFAULT_MAP) -> pd.DataFrame:
        """Return the words ranked at one place of the picture, by one kind of map: word, value.

        Raises:
            LookupError: for another kind.
            ValueError: for a place that is not there.
        """
        maps = self._maps(kind)
        height, width = maps.sizes["y"], maps.sizes["x"]
        if not (0 <= y < height and 0 <= x < width):
            raise UsageError(f"place is ({y}, {x}); maps have {height} rows and {width} columns, from 0")
        here = maps.isel(y=y, x=x)
        frame = pd.DataFrame({"word": here["word"].values, "value": here.values})
        return frame.sort_values("value", ascending=False, ignore_index=True)

    @checked
    def plot(self, kind: str = DEFAULT_MAP, *, static: bool = False) -> Figure:
        """Return the maps of all words over the picture, ``analysis.plots.word_panels``.

        Args:
            kind: one of ``kinds.KINDS``.
            static: by matplotlib, for print; else by plotly, with values on hover.

        Raises:
            LookupError: for another kind.
        """
        how = KINDS[kind] if kind in KINDS else KINDS[DEFAULT_MAP]
        name = "static_panels" if static else "word_panels"
        return figure(name, self.image[None], self._maps(kind), signed=how.signed, label=how.unit)

    @checked
    def plot_pairs(self, pair: str | None = None, *, static: bool = False) -> Figure:
        """Return redundancy and synergy of all pairs, or where the parts of one pair lie.

        ``analysis.plots.pair_matrix`` and ``analysis.plots.word_panels``.

        Args:
            pair: as ``pairs`` names it; None is all of them.
            static: by matplotlib, for print; else by plotly.

        Raises:
            LookupError: for a pair that is not there.
            ValueError: for one word, which has no pairs.
        """
        if not self.pairs:
            raise UsageError(f"{self.prompt!r} was explained by one word, which has no pairs; name two")
        if pair is None:
            return figure("static_matrix" if static else "pair_matrix", self.data)
        if pair not in self.pairs:
            raise NotFoundError(f"there is no pair {pair!r}; {near(pair, self.pairs)}")
        maps = self.data["pair_map"].sel(pair=pair, part=list(PARTS)).rename(part="word")
        name = "static_panels" if static else "word_panels"
        return figure(name, self.image[None], maps, signed=True, label=PARTS["synergy"].unit)

    @checked
    def page(self, path: str | Path, *, first: str = DEFAULT_MAP, command: str = "") -> Path:
        """Write the page: one HTML file that works offline; return its path.

        Args:
            path: of the file; an older one is replaced.
            first: the kind of map that is shown first.
            command: how the page says it was made.

        Raises:
            LookupError: for another kind.
            OSError: if it cannot be written.
        """
        self._maps(first)
        text = render(self.data, self.to_frame(), self.pairs_to_frame(), first, command)
        return written(path, text)

    def _as_page(self) -> tuple[str, str, str]:
        text = render(self.data, self.to_frame(), self.pairs_to_frame(), DEFAULT_MAP, "")
        return text, f"What each word of {self.prompt!r} does", "page('explanation.html')"

    def _maps(self, kind: str) -> Any:
        if kind not in KINDS:
            raise NotFoundError(f"there are no maps {kind!r}; {near(kind, KINDS)}")
        return self.data["maps"].sel(kind=kind)
