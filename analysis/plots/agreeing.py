"""A measure against what it claims to measure."""

from __future__ import annotations

import html

import pandas as pd
import plotly.graph_objects as go

from .style import INK, layout, whiskers, with_table

_GRID = "rgba(128,128,128,0.2)"
_COLOUR = "#d9480f"


def measure_and_share(subjects: pd.DataFrame, across: str, up: str) -> go.Figure:
    """Points with intervals in two directions: what was measured of each subject, and what was counted.

    Args:
        subjects: ``subject``; ``mean``, ``low`` and ``high`` of the measure; ``mean share``, ``low share``
            and ``high share`` of the count.
        across: names the measure.
        up: names the share.
    """
    figure = go.Figure(layout=layout(height=440))
    names = [html.escape(str(s)) for s in subjects["subject"]]
    told = [
        f"<b>{name}</b><br>{html.escape(across)}: {r['mean']:.3g} ({r['low']:.3g} to {r['high']:.3g})<br>"
        f"{html.escape(up)}: {r['mean share']:.2f} ({r['low share']:.2f} to {r['high share']:.2f})"
        for name, (_, r) in zip(names, subjects.iterrows(), strict=True)
    ]
    figure.add_trace(
        go.Scatter(
            x=subjects["mean"].tolist(),
            y=subjects["mean share"].tolist(),
            mode="markers+text",
            text=names,
            textposition="top right",
            textfont={"size": 10, "color": INK},
            marker={"color": _COLOUR, "size": 8},
            error_x=_whisker(subjects, ""),
            error_y=_whisker(subjects, " share"),
            hovertext=told,
            hoverinfo="text",
        )
    )
    figure.update_xaxes(title=html.escape(across), gridcolor=_GRID, zerolinecolor=INK, fixedrange=True)
    figure.update_yaxes(title=html.escape(up), range=[-0.04, 1.08], gridcolor=_GRID, zeroline=False,
                        fixedrange=True)  # fmt: skip
    columns = ["subject", *(f"{k}{of}" for of in ("", " share") for k in ("mean", "low", "high"))]
    return with_table(figure, columns, subjects[columns].itertuples(index=False))


def _whisker(subjects: pd.DataFrame, of: str) -> dict[str, object]:
    mean, low, high = (subjects[f"{k}{of}"] for k in ("mean", "low", "high"))
    return whiskers(mean, low, high, width=2, thickness=0.8, color=INK)
