"""The library behind the figures, for pages that load nothing."""

from __future__ import annotations


def plotly_js() -> str:
    """Return the source of plotly.js, for a page that works offline."""
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())
