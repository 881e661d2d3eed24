"""How a result draws itself: by a figure of analysis/plots, which lies above and is asked by name.

Models and probes work without that folder; plotly is imported when the first figure is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, TypeAlias

Figure: TypeAlias = Any
"""A ``plotly.graph_objects.Figure``; plotly is imported in analysis/plots alone."""


def figure(name: str, *given: Any, **settings: Any) -> Figure:
    """Return the figure of that name in ``denoscope.analysis.plots``, of a result."""
    plots = import_module(f"{__package__.partition('.')[0]}.analysis.plots")
    return getattr(plots, name)(*given, **settings)
