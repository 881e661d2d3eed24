"""Look: where each word is read."""

from __future__ import annotations

from ...analysis import plots
from ..results import Results, Section


def section(results: Results) -> Section:
    """The word maps of the first seed, over its picture."""
    look = results.stages["look"]
    maps = look["words"].isel(sample=0).rename(map_y="y", map_x="x")
    return Section(figures={"words": plots.word_heat(look["pictures"][0], maps)})
