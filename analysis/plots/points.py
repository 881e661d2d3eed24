"""Points with intervals in two directions, and how something falls."""

from __future__ import annotations

import html
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from ...models.errors import UsageError
from .style import INK, layout, whiskers, with_table

PALETTE = (
    *("#d9480f", "#4f7cac", "#2b8a3e", "#9c36b5", "#e8a317"),
    *("#0b7285", "#c2255c", "#5c5f66", "#7c5295", "#8a5a2b"),
)
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "pentagon")
_GRID = "rgba(128,128,128,0.2)"
_BELOW = {"orientation": "h", "y": -0.2, "yanchor": "top", "x": 0}
_BESIDE = {"before": "unedited", "oracle": "asked outright"}


def trade_off(summary: pd.DataFrame, across: str = "efficacy", up: str = "neighbours") -> go.Figure:
    """Efficacy against specificity: a point with two intervals for each method.

    Args:
        summary: method, measure, state (before, after, oracle), mean, low, high, concepts;
            ``EditBenchmark.summary()``.
        across: which measure is told across.
        up: which upwards.

    Raises:
        ValueError: if a measure is not there.
    """
    for name in (across, up):
        if name not in set(summary["measure"]):
            known = ", ".join(dict.fromkeys(summary["measure"]))
            raise UsageError(f"the summary has no measure {name!r}; it has {known or 'none'}")
    figure, rows = go.Figure(layout=layout(height=440)), []
    for i, (name, points) in enumerate(_points(summary, across, up)):
        x, y = points
        hollow = name in _BESIDE.values()
        figure.add_trace(_point(name, x, y, i, hollow))
        rows.append((name, *x, *y))
    figure.update_xaxes(title=across, range=[-0.04, 1.04], gridcolor=_GRID, zeroline=False, fixedrange=True)
    figure.update_yaxes(
        title=up if up == "specificity" else f"specificity: {up}",
        range=[-0.04, 1.04],
        gridcolor=_GRID,
        zeroline=False,
        fixedrange=True,
    )
    figure.update_layout(legend=_BELOW)
    columns = ["method", *(f"{n}{s}" for n in (across, up) for s in ("", ", low", ", high"))]
    return with_table(figure, columns, rows)


def _points(summary: pd.DataFrame, across: str, up: str) -> list[tuple[str, list[Any]]]:
    """Each method after its edits, and the unedited model by the requests of who takes most."""
    own = summary[summary["measure"].isin((across, up))].set_index(["method", "measure", "state"])
    methods = [
        m for m in dict.fromkeys(summary["method"]) if all((m, n, "after") in own.index for n in (across, up))
    ]
    if not methods:
        return []
    most = max(methods, key=lambda m: own.loc[(m, across, "after"), "concepts"])
    asked = [(m, m, "after") for m in methods] + [(label, most, s) for s, label in _BESIDE.items()]
    return [
        (name, [tuple(own.loc[(m, n, s), ["mean", "low", "high"]].astype(float)) for n in (across, up)])
        for name, m, s in asked
        if all((m, n, s) in own.index for n in (across, up))
    ]


def _point(name: str, x: tuple[float, ...], y: tuple[float, ...], i: int, hollow: bool) -> go.Scatter:
    colour = INK if hollow else PALETTE[i % len(PALETTE)]
    symbol = SYMBOLS[i % len(SYMBOLS)] + ("-open" if hollow else "")
    told = "<br>".join(
        f"{what}: {mean:.3f} (95% interval {low:.3f} to {high:.3f})"
        for what, (mean, low, high) in (("across", x), ("up", y))
    )
    return go.Scatter(
        x=[x[0]],
        y=[y[0]],
        name=html.escape(name),
        mode="markers",
        marker={"color": colour, "size": 11, "symbol": symbol},
        error_x=_whisker(x, colour),
        error_y=_whisker(y, colour),
        hovertext=[f"<b>{html.escape(name)}</b><br>{told}"],
        hoverinfo="text",
    )


def _whisker(point: tuple[float, ...], colour: str) -> dict[str, Any]:
    mean, low, high = point
    return whiskers([mean], [low], [high], thickness=1.1, color=colour)


def fall_lines(falls: pd.DataFrame) -> go.Figure:
    """How far something falls with the number of edits: a line for each method and order.

    Args:
        falls: method, order, edits, fall; dashed are the lines of an order that names "one after the other".
    """
    figure = go.Figure(layout=layout(height=380))
    methods = list(dict.fromkeys(falls["method"]))
    for (method, order), some in falls.groupby(["method", "order"], sort=False):
        line = some.sort_values("edits")
        name, i = f"{method}, {order}", methods.index(method)
        dash = "dash" if str(order).startswith("one") else "solid"
        figure.add_trace(
            go.Scatter(
                x=line["edits"].tolist(),
                y=line["fall"].astype(float).tolist(),
                name=html.escape(name),
                mode="lines+markers",
                line={"color": PALETTE[i % len(PALETTE)], "dash": dash},
                marker={"symbol": SYMBOLS[i % len(SYMBOLS)]},
                hovertext=[f"<b>{html.escape(name)}</b><br>{n} edits: {f:.3f}" for n, f in
                           zip(line["edits"], line["fall"], strict=True)],
                hoverinfo="text",
            )
        )  # fmt: skip
    figure.update_xaxes(title="edits", showgrid=False, zeroline=False, fixedrange=True, tickmode="array",
                        tickvals=sorted(set(falls["edits"].tolist())))  # fmt: skip
    figure.update_yaxes(title="fall of specificity", gridcolor=_GRID, zerolinecolor=INK, fixedrange=True)
    figure.update_layout(legend=_BELOW)
    return with_table(figure, list(falls.columns), falls.itertuples(index=False))
