"""Interactive Plotly figures of results; each function returns a figure and shows nothing.

The only folder that imports plotly. Inputs are plain labelled arrays, so a figure can be drawn again from a
saved store. Pictures are uint8 [..., y, x, channel]. Colours are picked to be read on light and on dark
paper; all backgrounds are transparent.
"""

from .bars import effect_bars
from .maps import effect_map, word_heat
from .offline import plotly_js
from .strips import before_after, sampling_strip

__all__ = ["before_after", "effect_bars", "effect_map", "plotly_js", "sampling_strip", "word_heat"]
