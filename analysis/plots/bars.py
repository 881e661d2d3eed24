"""Bars with confidence intervals."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr

from .results import bars_of
from .style import INK, interval_text, layout, whiskers, with_table

if TYPE_CHECKING:
    from ..edit_evaluation.evaluate import EditEvaluation

COLOURS = ("#a3a7ae", "#d9480f", "#4f7cac", "#5f9e6e", "#9467bd", "#c49c2e")


def effect_bars(effects: xr.Dataset | pd.DataFrame | EditEvaluation, measure: str = "shown") -> go.Figure:
    """Bars with confidence intervals, grouped by measure: before, after, and what to compare with.

    Args:
        effects: an EditEvaluation; or ``mean``, ``low`` and ``high`` with dims (measure, when), NaN where
            there is no number; or a table with these five columns.
        measure: which of the evaluation's: shown, gone, fit, moved.

    Raises:
        ValueError: for another measure.
    """
    if isinstance(effects, pd.DataFrame):
        effects = _labelled(effects)
    if not isinstance(effects, xr.Dataset):
        effects = bars_of(effects, measure)
    figure = go.Figure(layout=layout(height=70 + 84 * effects.sizes["measure"]))
    for i, when in enumerate(effects["when"].values):
        figure.add_trace(_bar(effects.sel(when=when), str(when), COLOURS[i % len(COLOURS)]))
    figure.update_yaxes(autorange="reversed", automargin=True, fixedrange=True)
    figure.update_xaxes(zeroline=True, zerolinecolor=INK, gridcolor="rgba(128,128,128,0.2)", fixedrange=True)
    figure.update_xaxes(rangemode="tozero")
    legend = {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "traceorder": "normal"}
    figure.update_layout(barmode="group", bargap=0.32, bargroupgap=0.12, legend=legend)
    frame = effects.to_dataframe().dropna(subset="mean").reset_index()
    columns = ["measure", "when", "mean", "low", "high"]
    return with_table(figure, columns, frame[columns].itertuples(index=False))


def _labelled(frame: pd.DataFrame) -> xr.Dataset:
    """A table as labelled numbers, in its own order."""
    found: xr.Dataset = frame.set_index(["measure", "when"])[["mean", "low", "high"]].to_xarray()
    return found.reindex({dim: frame[dim].unique() for dim in ("measure", "when")})


def _bar(part: xr.Dataset, name: str, colour: str) -> go.Bar:
    mean, low, high = (part[k].values for k in ("mean", "low", "high"))
    measures = [html.escape(str(m)) for m in part["measure"].values]
    told = [
        f"{m}<br>{html.escape(name)} <b>{v:.3f}</b><br>{interval_text(a, b)}"
        for m, v, a, b in zip(measures, mean, low, high, strict=True)
    ]
    return go.Bar(
        name=html.escape(name),
        y=[m.replace(" ", "<br>", 1) for m in measures],
        x=[None if np.isnan(v) else float(v) for v in mean],
        orientation="h",
        marker={"color": colour},
        error_x=whiskers(mean, low, high, width=4, color=INK),
        hovertext=told,
        hoverinfo="text",
    )


def weight_bars(edit: Any) -> go.Figure:
    """How far an Edit moves each weight: bars of the Frobenius norms of its changes, with their ranks.

    Args:
        edit: an Edit, or what has its ``to_frame``.
    """
    frame = edit.to_frame()
    figure = go.Figure(layout=layout(height=60 + 30 * max(len(frame), 2)))
    told = [
        f"<b>{html.escape(str(name))}</b><br>norm {row.norm:.3g}, rank {row.rank}, "
        f"99 % in {row.directions} directions"
        for name, row in zip(frame.index, frame.itertuples(), strict=True)
    ]
    figure.add_trace(
        go.Bar(
            x=frame["norm"],
            y=[html.escape(str(name)) for name in frame.index],
            orientation="h",
            marker={"color": COLOURS[1]},
            hovertext=told,
            hoverinfo="text",
        )
    )
    figure.update_xaxes(title="norm of the change", rangemode="tozero", fixedrange=True)
    figure.update_yaxes(autorange="reversed", automargin=True, fixedrange=True)
    return with_table(figure, ("weight", *frame.columns), frame.itertuples())
