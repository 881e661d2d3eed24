"""Interactive Plotly figures of results; each function returns a figure and shows nothing.

The only folder that imports plotly (``static_...``: matplotlib, for print). Figures take results as they are
(a Trace, WordMaps, Scores, a Mediation, an EditEvaluation, an Edit) or plain labelled arrays, so that one can
be drawn again from a saved store.
Pictures are uint8 [..., y, x, channel]. Colours are picked to be read on light and on dark paper; all
backgrounds are transparent.
"""

from .agreeing import measure_and_share
from .bars import effect_bars, weight_bars
from .guiding import gap_lines, guidance_lines
from .lines import interval_lines, level_curves
from .maps import effect_map, word_heat
from .nats import nats_maps
from .offline import plotly_js
from .pictures import png as picture_address
from .points import fall_lines, trade_off
from .static import static_matrix, static_panels
from .strips import before_after, picture_grid, picture_rows, sampling_strip
from .timing import when_and_where
from .words import matrix_of, pair_matrix, word_panels

__all__ = [
    "before_after",
    "effect_bars",
    "effect_map",
    "fall_lines",
    "gap_lines",
    "guidance_lines",
    "interval_lines",
    "level_curves",
    "matrix_of",
    "measure_and_share",
    "nats_maps",
    "pair_matrix",
    "picture_address",
    "picture_grid",
    "picture_rows",
    "plotly_js",
    "sampling_strip",
    "static_matrix",
    "static_panels",
    "trade_off",
    "weight_bars",
    "when_and_where",
    "word_heat",
    "word_panels",
]
