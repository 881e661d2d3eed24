"""The page of a dictionary: one self-contained HTML file; its script searches and sorts, and no more."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from ..analysis import plots
from ..report.page import made_by, rendered

HEAT = (64, 40, 255)
"""Colour of maps: blue, as faces are yellow, brown and orange."""
WIDE, HIGH = 120, 28
"""Of a profile over steps, in pixels."""
NAMES = {0.0: "off", 2.0: "× 2", 5.0: "× 5"}


def render(data: xr.Dataset, tells: pd.DataFrame, command: str) -> str:
    """Return the page.

    Args:
        data: of an Atlas.
        tells: its ``tells``.
        command: how it was made; empty is a call in Python.
    """
    about = data.attrs
    used = sorted(set(data["top"].values.ravel().tolist()))
    page = {
        "site": about["site"],
        "facts": [
            f"model {about['model']}",
            f"{data.sizes['feature']} of {about['width']} features",
            f"{data.sizes['sample']} samples",
            f"{about['steps']} steps",
        ],
        "sheet": [(i, plots.picture_address(data["pictures"].values[i])) for i in used],
        "ratio": data.sizes["column"] / data.sizes["row"],
        "cards": [_card(data, tells, i) for i in range(data.sizes["feature"])],
        "size": (WIDE, HIGH),
        "steps": [int(s) for s in data["step"].values[[0, -1]]],
        "provenance": made_by(
            command or "denoscope.browse_features",
            about,
            dictionary=about["dictionary"],
            guidance=about["guidance"],
        ),
    }
    return rendered("atlas.html.jinja", page=page)


def _card(data: xr.Dataset, tells: pd.DataFrame, i: int) -> dict[str, Any]:
    feature = int(data["feature"][i])
    own = tells[tells["feature"] == feature]
    top = [int(s) for s in data["top"].values[i]]
    prompts = [str(data["prompt"].values[s]) for s in top]
    maps = data["maps"].values[i] if "maps" in data else None
    most = 1.0 if maps is None else float(maps.max()) or 1.0
    pictures = [
        {
            "sample": s,
            "said": f"{prompts[place] or 'no prompt'}, seed {int(data['seed'].values[s])}",
            "map": None if maps is None else heat(maps[place] / most),
        }
        for place, s in enumerate(top)
    ]
    moved, scales = data["moved"].values[i], data["scale"].values
    edited = [
        {"name": NAMES[float(s)], "source": plots.picture_address(data["edited"].values[i, j]),
         "moved": f"{moved[j]:.3g}"}
        for j, s in enumerate(scales)
    ]  # fmt: skip
    names = own["name"].tolist()
    return {
        "feature": feature,
        "tells": [
            (f"{r.kind}: {r.name}", f"{r.auc:.2f}", f"{r.low:.2f} to {r.high:.2f}")
            for r in own.rename(columns={"name": "called"}).assign(name=names).itertuples(index=False)
        ],
        "tried": 0 if own.empty else int(own["tried"].iloc[0]),
        "words": " ".join([str(feature), *names, *own["kind"], *prompts]).lower(),
        "density": f"{float(data['density'][i]):.1%}",
        "profile": points(data["profile"].values[i]),
        "pictures": pictures,
        "edited": edited,
        "order": {
            "number": feature,
            "activity": -float(data["activity"].values[i].mean()),
            "tells": -float(own["auc"].max()) if len(own) else 0.0,
            "moves": -float(moved.max()),
        },
    }


def heat(values: NDArray[np.floating[Any]]) -> str:
    """A map [y, x] in 0..1 as a picture that is clear where it is 0."""
    pixels = np.empty((*values.shape, 4), np.uint8)
    pixels[..., :3] = HEAT
    pixels[..., 3] = (values.clip(0, 1) * 215).round()
    return plots.picture_address(pixels)


def points(profile: NDArray[np.floating[Any]]) -> str:
    """A profile over steps as points of a line.

    >>> points(np.array([0.0, 1.0]))
    '0.0,27.0 120.0,1.0'
    """
    x = np.linspace(0, WIDE, len(profile)) if len(profile) > 1 else np.array([WIDE / 2])
    y = HIGH - 1 - (HIGH - 2) * profile / (profile.max() or 1.0)
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
