"""The page of a benchmark: one self-contained HTML file; all text is escaped."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from ..analysis import plots
from ..models.arguments import checked
from ..models.store.disk import write_bytes
from ..report.page import filled
from ..report.plain import amount, with_interval
from .result import EditBenchmark, Strip

SHARES = {
    "efficacy": "efficacy",
    "generality": "generality",
    "paraphrase": "wordings",
    "capitals": "capitals",
    "plural": "plurals",
    "neighbours": "neighbours",
    "bystanders": "bystanders",
}
BESIDE = {"before": "unedited", "oracle": "asked outright"}
Table = dict[str, Sequence[Any]]


PAGE = "report.html"


@checked
def write_page(found: EditBenchmark, folder: str | Path) -> Path:
    """Write the page of a benchmark, ``report.html``, whole or not at all; return its path.

    Raises:
        OSError: if it cannot be written.
    """
    path = Path(folder) / PAGE
    write_bytes(path, render(found).encode())
    return path


def render(found: EditBenchmark) -> str:
    """Return the page of a benchmark."""
    summary, about = found.summary(), found.about
    edited, still = _strips(found.strips)
    seeds, concepts = len(about["seeds"]), found.cells["concept"].nunique()
    facts = [
        f"{found.cells['method'].nunique()} methods",
        f"{concepts} concepts",
        f"{seeds} seed{'s' if seeds > 1 else ''}",
        f"{about['steps']} steps",
        f"guidance {about['guidance']:g}",
        f"judge: {about['judge'].get('name', 'unknown')}",
    ]
    page = {
        "title": f"Edits compared on {about['model']}",
        "model": about["model"],
        "facts": facts,
        "measures": _measures(found, summary),
        "edited": edited,
        "still": still,
        "columns": _columns(edited, found),
        "still_columns": _columns(still, found),
        "many": many_table(found.many),
        "kinds": _kinds(found.cells),
        "refused": _refused(found.cells),
        "judged": not summary.empty,
        "provenance": [(k, _plain(v)) for k, v in about.items()],
    }
    figures = {} if summary.empty else {"trade": plots.trade_off(summary)}
    if not found.many.empty:
        figures["many"] = plots.fall_lines(falls(found.many))
    return filled("bench.html.jinja", page, figures)


def falls(many: pd.DataFrame) -> pd.DataFrame:
    """Return how far the specificity of neighbours falls, for each method, order and number of edits."""
    done = many[many["reason"].isna()]
    fall = done["neighbours_before"].astype(float) - done["neighbours_after"].astype(float)
    return done[["method", "order", "edits"]].assign(fall=fall).dropna()


def measured(found: EditBenchmark, summary: pd.DataFrame) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Yield for each method, then for the unedited model, its measures in words."""
    names = list(dict.fromkeys(found.cells["method"]))
    for name in names:
        own = found.cells[(found.cells["method"] == name)]
        done = own[own["reason"].isna()]
        told = {"concepts": f"{len(done)} of {len(own)}", **_shares(summary, name, "after")}
        for measure in ("fit", "drift"):
            told[measure] = _said(summary, name, measure, "after", share=False)
        told["KID"] = _number(done["kid"].astype(float).mean()) if len(done) else "-"
        far = found.distances[found.distances["method"] == name]
        told["FID"] = _number(far["fid"].astype(float).iloc[0]) if len(far) else "-"
        told["seconds"] = _number(done["seconds"].astype(float).median()) if len(done) else "-"
        told["weights"] = f"{done['weights'].astype(float).median():,.0f}" if len(done) else "-"
        told["share"] = f"{done['share'].astype(float).median():.2%}" if len(done) else "-"
        yield name, told
    counts = summary[summary["measure"] == "efficacy"].groupby("method")["concepts"].max()
    if len(counts):  # of the method that takes most requests
        most = str(counts.idxmax())
        for state, label in BESIDE.items():
            told = {"concepts": str(counts.max()), **_shares(summary, most, state)}
            yield label, {**told, "fit": _said(summary, most, "fit", state, share=False)}


def _measures(found: EditBenchmark, summary: pd.DataFrame) -> Table:
    rows = dict(measured(found, summary))
    columns = list(next(iter(rows.values())))
    return {
        "columns": ["", *columns],
        "rows": [(name, *(told.get(c, "") for c in columns)) for name, told in rows.items()],
    }


def _shares(summary: pd.DataFrame, method: str, state: str) -> dict[str, str]:
    return {label: _said(summary, method, name, state) for name, label in SHARES.items()}


def _said(summary: pd.DataFrame, method: str, measure: str, state: str, *, share: bool = True) -> str:
    at = (summary["method"] == method) & (summary["measure"] == measure) & (summary["state"] == state)
    if not at.any():
        return "-"
    row = summary[at].iloc[0]
    return "-" if math.isnan(row["mean"]) else with_interval(row["mean"], row["low"], row["high"], share)


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3g}"


def many_table(many: pd.DataFrame) -> Table:
    """Return many edits beside each other in words: columns and rows."""
    columns = ("method", "edits", "order", "made", "efficacy", "outright", "neighbours", "bystanders",
               "drift", "seconds", "refused because")  # fmt: skip
    rows = list[tuple[Any, ...]]()
    for row in many.itertuples():
        if isinstance(row.reason, str):
            rows.append((row.method, row.edits, row.order, row.made, *[""] * 6, row.reason))
            continue
        pairs = [
            f"{_part(before)} → {_part(after)}"
            for before, after in (
                (row.neighbours_before, row.neighbours_after),
                (row.bystanders_before, row.bystanders_after),
            )
        ]
        told = _part(row.efficacy_after), _part(row.efficacy_oracle), *pairs
        rows.append(
            (row.method, row.edits, row.order, row.made, *told, _number(_float(row.drift)),
             _number(_float(row.seconds)), "")
        )  # fmt: skip
    return {"columns": columns, "rows": rows}


def _kinds(cells: pd.DataFrame) -> Table:
    kinds = list(dict.fromkeys(cells["kind"]))
    done = cells[cells["reason"].isna()]
    rows = list[tuple[Any, ...]]()
    for method in dict.fromkeys(cells["method"]):
        own = done[done["method"] == method]
        line = []
        for kind in kinds:
            some = own[own["kind"] == kind]
            after, oracle = (_float(some[f"efficacy_{s}"].astype(float).mean()) for s in ("after", "oracle"))
            line.append(f"{_part(after)} ({_part(oracle)})" if len(some) else "refused")
        rows.append((method, *line))
    return {"columns": ["", *kinds], "rows": rows}


def _refused(cells: pd.DataFrame) -> Table:
    left = cells[cells["reason"].notna()]
    rows = [
        (method, str(len(some)), f"{some['concept'].iloc[0]}: {some['reason'].iloc[0]}")
        for method, some in left.groupby("method", sort=False)
    ]
    return {"columns": ("method", "requests", "the first of them, and why"), "rows": rows}


def _strips(strips: Sequence[Strip]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What is edited, and what should stay; pictures as data addresses."""
    edited, still = list[dict[str, Any]](), list[dict[str, Any]]()
    for strip in strips:
        same = strip.wanted == strip.prompt
        told = {
            "prompt": strip.prompt,
            "wanted": "" if same else strip.wanted,
            "pictures": {name: _address(x) for name, x in strip.pictures.items()},
        }
        (still if same else edited).append(told)
    return edited, still


def _columns(strips: Sequence[Mapping[str, Any]], found: EditBenchmark) -> list[str]:
    there = {name for strip in strips for name in strip["pictures"]}
    order = [*BESIDE.values(), *dict.fromkeys(found.cells["method"])]
    return [name for name in order if name in there]


def _address(pixels: Tensor) -> str:
    return plots.picture_address(pixels.permute(1, 2, 0).numpy())


def _part(value: Any) -> str:
    number = _float(value)
    return "-" if math.isnan(number) else amount(number, True)


def _float(value: Any) -> float:
    return math.nan if value is None else float(value)


def _plain(value: Any) -> str:
    return ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, Mapping) else str(value)
