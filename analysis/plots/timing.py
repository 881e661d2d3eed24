"""When a concept is decided beside where it is carried: two panels over the steps of one run."""

from __future__ import annotations

import html
import re
from typing import Any

import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from ...models.errors import UsageError
from .lines import level_curves
from .maps import EFFECT
from .results import Effects, effects_of
from .style import interval_text, layout, with_table

FAINT = "rgba(128,128,128,0.2)"


def when_and_where(curves: xr.Dataset, effects: Effects, label: str = "share", limit: float = 1) -> go.Figure:
    """Insertion and removal curves above, effects of sites in windows of steps below, on one axis.

    A curve that falls where a site's effect is large says that the site acts while the concept is decided.
    The two answer different questions, and need not agree.

    Args:
        curves: ``Decision.curves()``, of runs with as many steps as the windows are of.
        effects: Scores or a Mediation over sites and windows that follow each other, ``trace_denoiser(...,
            windows=[range(0, 4), range(4, 8)])``.
        label: what the effects are, for the hover.
        limit: the effect of full colour.

    Raises:
        TypeError: for what holds no effects.
        ValueError: for effects without windows, windows that overlap or leave steps out, and runs of other
            lengths.
    """
    found = effects_of(effects)
    mean = found["mean"]
    if set(mean.dims) != {"site", "window"}:
        raise UsageError(f"the effects are over {mean.dims}; give sites by windows of steps")
    found = found.transpose("site", "window")
    edges = _edges([str(w) for w in mean["window"].values])
    steps = int(curves["switch"].max())
    if edges[-1] != steps:
        raise UsageError(
            f"the windows end at step {edges[-1]} and the curves at {steps}; use one number of steps"
        )
    lines = level_curves(curves)
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.06, row_heights=[0.4, 0.6])
    for line in lines.data:
        figure.add_trace(line, row=1, col=1)
    figure.add_trace(_heat(found, edges, label, limit), row=2, col=1)
    figure.update_layout(layout(height=320 + 24 * max(len(found["site"]), 4)))
    figure.update_layout(legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0})
    figure.update_yaxes(
        title="level", range=[-0.3, 1.3], gridcolor=FAINT, row=1, col=1
    )  # intervals may be wider
    figure.update_yaxes(autorange="reversed", showgrid=False, row=2, col=1)
    figure.update_xaxes(title="steps done", row=2, col=1)
    figure.update_xaxes(
        range=[0, steps], dtick=1, showgrid=False, zeroline=False, fixedrange=True, automargin=True
    )
    figure.update_yaxes(zeroline=False, fixedrange=True, automargin=True)
    columns, rows = ["panel", "what", "steps", "mean", "low", "high"], list[tuple[object, ...]]()
    rows += [("when", f"{r[0]}, {r[1]}", *r[2:]) for r in lines.layout.meta["table"]["rows"]]
    rows += [
        (
            "where",
            str(site),
            str(window),
            *(float(found[k].sel(site=site, window=window)) for k in columns[3:]),
        )
        for site in found["site"].values
        for window in found["window"].values
    ]
    return with_table(figure, columns, rows)


def _edges(windows: list[str]) -> list[int]:
    """Where windows "0-3", "4-7" begin, and the end of the last."""
    ends = [re.fullmatch(r"(\d+)-(\d+)", w) for w in windows]
    whole = [(int(m[1]), int(m[2]) + 1) for m in ends if m]
    follow = all(a[1] == b[0] for a, b in zip(whole, whole[1:], strict=False))
    if len(whole) < len(windows) or not follow or whole[0][0] != 0:
        raise UsageError(
            f"the windows are {', '.join(windows)}; give windows that follow each other from step 0 on, like "
            "windows=[range(0, 4), range(4, 8)]"
        )
    return [a for a, _ in whole] + [whole[-1][1]]


def _heat(found: xr.Dataset, edges: list[int], label: str, limit: float) -> go.Heatmap:
    sites = [str(s) for s in found["site"].values]
    hover: list[list[str]] = [
        [
            f"<b>{html.escape(site)}</b><br>steps {window}: {label} {float(found['mean'].sel(at)):.3f}<br>"
            + interval_text(float(found["low"].sel(at)), float(found["high"].sel(at)))
            for window in found["window"].values
            if (at := {"site": site, "window": window})
        ]
        for site in sites
    ]
    bar: dict[str, Any] = {
        "thickness": 7,
        "outlinewidth": 0,
        "tickvals": [-limit, 0, limit],
        "len": 0.55,
        "y": 0.28,
    }
    return go.Heatmap(
        z=found["mean"].values.tolist(),
        x=edges,
        y=sites,
        hovertext=hover,
        hoverinfo="text",
        hoverongaps=False,
        colorscale=EFFECT,
        zmin=-limit,
        zmax=limit,
        xgap=2,
        ygap=2,
        colorbar=bar,
    )
