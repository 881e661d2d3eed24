"""The page of an explanation: one self-contained HTML file; all text is escaped."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ..analysis import plots
from ..report.page import rendered
from .kinds import KINDS, PARTS

ORANGE, BLUE = "255,96,0", "37,99,235"
MOST_SHADE = 0.45
"""Of a cell of the matrix; text is read on it, on light and dark paper."""
TOLD = (*PARTS, "total")
"""The parts of the table of pairs; all are in its file."""
Cells = Sequence[Sequence[Mapping[str, Any]]]


def render(data: xr.Dataset, words: pd.DataFrame, pairs: pd.DataFrame, first: str, command: str) -> str:
    """Return the page.

    Args:
        data: of an Explanation.
        words: its ``to_frame``.
        pairs: its ``pairs_to_frame``.
        first: the kind of map that is shown first.
        command: how it was made; empty is a call in Python.
    """
    about = data.attrs
    strongest = int(words["nats"].abs().idxmax())
    best = words.iloc[strongest]
    page = {
        "prompt": about["prompt"],
        "ask": _ask(about),
        "facts": _facts(about),
        "unread": about.get("unread", []),
        "pieces": _pieces(data),
        "strongest": f"“{best['word']}” tells most: {plain(best['nats'])} nats that no other word tells.",
        "clock": "noise level" if about["own_picture"] else "step",
        "stops": _stops(data),
        "first": first,
        "kinds": {name: KINDS[name] for name in (first, *(k for k in KINDS if k != first))},
        "words": [str(w) for w in words["word"]],
        "matrix": _matrix(data) if len(pairs) else [],
        "rows": [
            {k: v if k == "word" else plain(v) for k, v in row.items()} for row in words.to_dict("records")
        ],
        "parts": TOLD,
        "pair_rows": _pair_rows(pairs),
        "command": command or _code(about),
        "provenance": _provenance(about, command),
    }
    return rendered("explained.html.jinja", page=page, shown=_shown(data, words, pairs, first, strongest))


def plain(value: float) -> str:
    """A number of about three digits.

    >>> plain(1729.98), plain(-0.01234), plain(0.0)
    ('1730', '-0.0123', '0')
    """
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value)))) if math.isfinite(value) else 0
    return f"{value:.{min(digits, 12)}f}"


def _ask(about: Mapping[str, Any]) -> str:
    whose = "a picture of your own" if about["own_picture"] else "one picture that the model painted of it"
    return f"Each word of the prompt, by itself and with every other: what it tells of {whose}, and where."


def _facts(about: Mapping[str, Any]) -> list[str]:
    run = [] if about["own_picture"] else [f"{about['steps']} steps", f"guidance {about['guidance']:g}"]
    own = ["own picture"] if about["own_picture"] else []
    return [f"model {about['model']}", *own, f"seed {about['seed']}", *run, f"{about['levels']} noise levels"]


def _pieces(data: xr.Dataset) -> list[dict[str, Any]]:
    """The prompt, cut into words that have maps and what lies between."""
    text, found, last = data.attrs["prompt"], list[dict[str, Any]](), 0
    for i, (a, b) in enumerate(zip(data["begins"].values, data["ends"].values, strict=True)):
        found += [{"text": text[last:a], "word": None}, {"text": text[a:b], "word": i}]
        last = b
    return [piece for piece in [*found, {"text": text[last:], "word": None}] if piece["text"]]


def _stops(data: xr.Dataset) -> list[str]:
    n = data.sizes["step"]
    if data.attrs["own_picture"]:
        return [f"log-SNR {-2 * math.log(sigma):.1f}" for sigma in data["sigma"].values]
    return [f"step {k + 1} of {n}" for k in range(n)]


def _matrix(data: xr.Dataset) -> Cells:
    values, n = plots.matrix_of(data), data.sizes["word"]
    words, pairs = [str(w) for w in data["word"].values], [str(p) for p in data["pair"].values]
    limit = float(np.abs(values[~np.eye(n, dtype=bool)]).max()) or 1.0

    def cell(i: int, j: int) -> dict[str, Any]:
        value = float(values[i, j])
        if i == j:
            return {"text": plain(value), "pair": None}
        a, b = sorted((i, j))
        part = "redundancy" if i > j else "synergy"
        shade = f"rgba({ORANGE if value >= 0 else BLUE},{MOST_SHADE * abs(value) / limit:.3f})"
        label = f"{part} of {words[a]} and {words[b]}: {plain(value)} nats"
        return {"text": plain(value), "pair": pairs.index(f"{words[a]} + {words[b]}"), "colour": shade,
                "label": label}  # fmt: skip

    return [[cell(i, j) for j in range(n)] for i in range(n)]


def _pair_rows(pairs: pd.DataFrame) -> list[dict[str, Any]]:
    found = dict[str, list[str]]()
    for row in pairs[pairs["part"].isin(TOLD)].itertuples():
        half = (row.high - row.low) / 2
        found.setdefault(row.pair, []).append(
            f"{plain(row.nats)} ± {plain(half)}" if half else plain(row.nats)
        )
    return [{"pair": pair, "cells": cells} for pair, cells in found.items()]


def _shown(
    data: xr.Dataset, words: pd.DataFrame, pairs: pd.DataFrame, first: str, strongest: int
) -> dict[str, Any]:
    """What the script reads; maps as little-endian float32."""
    names = [str(w) for w in words["word"]]
    numbers = {
        pair: {r.part: [r.nats, r.low, r.high] for r in own.itertuples()}
        for pair, own in pairs.groupby("pair", sort=False)
    }
    parts = {p: _floats(data["pair_map"].sel(part=p)) for p in PARTS} if len(pairs) else {}
    ends = zip(data["first"].values, data["second"].values, strict=True) if len(pairs) else ()
    return {
        "prompt": data.attrs["prompt"],
        "size": [data.sizes["row"], data.sizes["column"]],
        "grid": [data.sizes["y"], data.sizes["x"]],
        "picture": plots.picture_address(data["picture"].values),
        "words": names,
        "first": first,
        "strongest": strongest,
        "kinds": {name: asdict(kind) for name, kind in KINDS.items()},
        "parts": {name: asdict(kind) for name, kind in PARTS.items()},
        "kindNames": list(KINDS),  # JSON in pages has its keys sorted
        "partNames": list(PARTS),
        "allParts": list(dict.fromkeys(pairs["part"])),
        "numbers": words[["nats", "low", "high"]].values.tolist(),
        "maps": {kind: _floats(data["maps"].sel(kind=kind)) for kind in KINDS},
        "attention": _floats(data["attention"]),
        "stops": _stops(data),
        "pairs": [[names.index(str(a)), names.index(str(b))] for a, b in ends],
        "pairNumbers": list(numbers.values()),
        "pairMaps": parts,
    }


def _floats(values: xr.DataArray) -> str:
    return base64.b64encode(np.ascontiguousarray(values.values, "<f4").tobytes()).decode()


def _code(about: Mapping[str, Any]) -> str:
    own = ', image="picture.png"' if about["own_picture"] else ""
    return (
        f"import denoscope\n\nmodel = denoscope.load({about['model']!r})\n"
        f"found = denoscope.explain(model, {about['prompt']!r}{own}, seed={about['seed']})\n"
        'found.page("explanation.html")'
    )


def _provenance(about: Mapping[str, Any], command: str) -> list[tuple[str, str]]:
    rows = {
        "made by": command or "denoscope.explain",
        "seed": about["seed"],
        "weights (sha256)": about["weights"],
        "network rows of the informations": about["rows"],
        "draws at each level": about["draws"],
        "scheduler": about["scheduler"],
        "number format": about["dtype"],
        **about["versions"],
    }
    return [(key, str(value)) for key, value in rows.items()]
