"""The page of two models side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
import xarray as xr

from ..analysis import plots
from ..analysis.localisation.comparison import Comparison
from ..report.page import filled, made_by
from ..report.plain import plain_metric

PICTURES, WEIGHTS, SITES = 8, 20, 20


def render(  # noqa: PLR0917  # all that stands on it
    data: xr.Dataset,
    found: Comparison,
    names: Sequence[str],
    sites: pd.DataFrame,
    weights: pd.DataFrame,
    command: str,
) -> str:
    """Return the page.

    Args:
        data: of a ComparedModels.
        found: the comparison, site by site.
        names: what each picture is.
        sites: table of sites, what matters most first.
        weights: table of weights, the most changed first.
        command: how it was made; empty is a call in Python.
    """
    about = data.attrs
    shares = bool(sites["effect"].notna().any())
    first, second = (data["pictures"].isel(model=i, drop=True)[:PICTURES] for i in (0, 1))
    figures = {
        "pictures": plots.picture_rows(
            xr.concat([first, second], "picture").rename(picture="sample"),
            [str(about["model"]), str(about["other"])],
            [*names[:PICTURES]] * 2,
        ),
        "difference": found.plot("difference"),
    }
    if shares:
        figures["effect"] = found.plot("effect")
    page = {
        "first": str(about["model"]),
        "second": str(about["other"]),
        "facts": [
            f"{data.sizes['prompt']} prompt{'s' * (data.sizes['prompt'] > 1)}",
            f"{data.sizes['seed']} seed{'s' * (data.sizes['seed'] > 1)}",
            f"{data.sizes['step']} steps", f"guidance {about['guidance']:g}",
        ],
        "told": tell(found, sites, weights),
        "shares": shares,
        "metric": plain_metric(str(about["metric"])),
        "sites": [_site(row) for row in sites.head(SITES).to_dict("records")],
        "weights": [_weight(row) for row in weights.head(WEIGHTS).to_dict("records")],
        "more": max(0, len(weights) - WEIGHTS),
        "provenance": made_by(command or "denoscope.compare_models", about, second=about["second"]),
    }  # fmt: skip
    return filled("compared.html.jinja", page, figures)


def tell(found: Comparison, sites: pd.DataFrame, weights: pd.DataFrame) -> list[dict[str, Any]]:
    """Say what was found, in sentences that are written from the numbers."""
    total = found.total()
    mean, low, high = (float(total[k]) for k in ("mean", "low", "high"))
    n = "1 weight differs" if len(weights) == 1 else f"{len(weights)} weights differ"
    said = [_said(f"{n}, of {int(weights['size'].sum()):,} numbers.", weak=False)]
    if weights.empty:
        said = [
            _said("No weight differs: what makes the models two lies elsewhere, or they are one.", weak=True)
        ]
    name = plain_metric(str(found.data.attrs["metric"]))
    sure = low > 0 or high < 0
    spread = "" if math.isnan(low) else f" (95% interval {low:.3g} to {high:.3g})"
    said.append(_said(f"Between their pictures the {name} differs by {mean:.3g}{spread}.", weak=not sure))
    known = sites.dropna(subset="effect")
    if len(known):
        best = known.iloc[0]
        text = f"Swapped in alone, {best['site']} brings {best['effect']:.0%} of that difference"
        bounds = "" if math.isnan(best["low"]) else f" ({best['low']:.0%} to {best['high']:.0%})"
        said.append(_said(f"{text}{bounds}, the most of all sites.", weak=not best["low"] > 0))
    least = sites.loc[sites["cosine"].idxmin()]
    text = f"Least alike are both at {least['site']}: cosine {least['cosine']:.3f}, over all steps."
    said.append(_said(text, weak=False))
    return said


def _said(text: str, *, weak: bool) -> dict[str, Any]:
    return {"text": text, "weak": weak}


def _site(row: dict[str, Any]) -> list[str]:
    effect = "" if math.isnan(row["effect"]) else f"{row['effect']:.0%}"
    if effect and not math.isnan(row["low"]):
        effect += f" ({row['low']:.0%} to {row['high']:.0%})"
    return [str(row["site"]), effect, f"{row['cosine']:.3f}", f"{row['relative']:.3f}"]


def _weight(row: dict[str, Any]) -> list[str]:
    relative = "in one model alone" if math.isnan(row["relative"]) else f"{row['relative']:.2%}"
    return [str(row["weight"]), relative, f"{int(row['size']):,}"]
