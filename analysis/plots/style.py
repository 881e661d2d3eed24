"""What all figures share: colours, layout, and how an interval is told."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

INK = "#7a7a80"
CLEAR = "rgba(0,0,0,0)"


def layout(height: int | None = None) -> dict[str, Any]:
    """Return the layout that every figure starts from; its height in pixels, or as the page gives it."""
    return {
        "template": None,
        "height": height,
        "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
        "paper_bgcolor": CLEAR,
        "plot_bgcolor": CLEAR,
        "font": {"color": INK, "size": 12, "family": "system-ui, sans-serif"},
        "hoverlabel": {"align": "left"},
        "modebar": {"bgcolor": CLEAR, "remove": ["sendDataToCloud"]},  # nothing leaves this machine
        "dragmode": False,
    }


def with_table(figure: Any, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Any:
    """Give a figure its numbers as a table, for those who read rather than look: ``layout.meta["table"]``."""
    told = {"columns": list(columns), "rows": [[_plain(v) for v in row] for row in rows]}
    return figure.update_layout(meta={**(figure.layout.meta or {}), "table": told})


def _plain(value: object) -> object:
    """A value as JSON has it; a missing number is None."""
    if isinstance(value, float | np.floating):
        return None if np.isnan(value) else float(value)
    return value if isinstance(value, int | str) else str(value)


def whiskers(
    mean: ArrayLike, low: ArrayLike, high: ArrayLike, width: int = 3, **look: object
) -> dict[str, Any]:
    """Return the bars of an interval for plotly; none where there is no interval."""
    middle = np.asarray(mean, float)
    return {
        "type": "data",
        "symmetric": False,
        "array": np.nan_to_num(np.asarray(high, float) - middle).tolist(),
        "arrayminus": np.nan_to_num(middle - np.asarray(low, float)).tolist(),
        "width": width,
        "thickness": 1.2,
        **look,
    }


def interval_text(low: float, high: float) -> str:
    """Return a 95% interval in words, for a hover; NaN says that there is none."""
    if np.isnan(low) or np.isnan(high):
        return "no interval: a single run"
    zero = " (holds 0)" if low <= 0 <= high else ""
    return f"95% interval {low:.3f} to {high:.3f}{zero}"
