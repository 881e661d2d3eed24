"""Guidance over the steps of a run: how much each part added, how far a composition is off."""

from __future__ import annotations

import html
from collections.abc import Sequence

import plotly.graph_objects as go
from torch import Tensor

from ...probes.guiding.composing import CompositionGap
from ...probes.guiding.log import GuidanceLog
from .bars import COLOURS
from .style import INK, layout, whiskers, with_table


def guidance_lines(log: GuidanceLog) -> go.Figure:
    """How long what each part added is beside the conditional output, step by step.

    A line is the mean over samples, the bars reach from the least to the most of them.

    Args:
        log: ``trace.guidance``.
    """
    lines = {part: log.share(part) for part in log.lengths}
    return _over_steps([s.index for s in log.steps], lines, "added, as a share of the output")


def gap_lines(found: CompositionGap) -> go.Figure:
    """The composition gap step by step; 1, as far off as saying nothing, is dotted.

    Args:
        found: ``composition_gap(...)``.
    """
    name = " AND ".join(found.texts)
    figure = _over_steps([s.index for s in found.steps], {name: found.gap}, "composition gap")
    figure.add_hline(y=1, line={"color": INK, "width": 1, "dash": "dot"})
    return figure


def _over_steps(steps: Sequence[int], lines: dict[str, Tensor], title: str) -> go.Figure:
    figure = go.Figure(layout=layout(height=320))
    for i, (name, values) in enumerate(lines.items()):
        mean, low, high = values.mean(1), values.amin(1), values.amax(1)
        figure.add_trace(
            go.Scatter(
                x=list(steps),
                y=mean.tolist(),
                name=html.escape(name),
                mode="lines+markers",
                line={"color": COLOURS[i % len(COLOURS)]},
                error_y=whiskers(mean, low, high),
                hovertemplate=f"<b>{html.escape(name)}</b><br>step %{{x}}: %{{y:.3f}}<extra></extra>",
            )
        )
    figure.update_xaxes(title="step", showgrid=False, zeroline=False, fixedrange=True)
    figure.update_yaxes(title=title, gridcolor="rgba(128,128,128,0.2)", rangemode="tozero", fixedrange=True)
    figure.update_layout(legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0}, showlegend=True)
    rows = [
        (name, step, *(float(f(values[i])) for f in (Tensor.mean, Tensor.min, Tensor.max)))
        for name, values in lines.items()
        for i, step in enumerate(steps)
    ]
    return with_table(figure, ["part", "step", "mean", "least", "most"], rows)
