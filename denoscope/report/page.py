"""A run's page: one self-contained HTML file that works offline.

Every number and every sentence comes from the run's datasets. All text is escaped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import xarray as xr
from jinja2 import Environment, PackageLoader, StrictUndefined

from ..analysis import plots
from ..editing.edit import Edit
from ..models.errors import UsageError
from ..models.store.disk import write_bytes
from .changes import Changes
from .findings import Finding
from .results import Results, Section
from .sections import (
    change,
    changes,
    check,
    closing,
    denoiser_cause,
    detour,
    features,
    information,
    look,
    opening,
    text_cause,
    words,
)

SECTIONS: tuple[Callable[[Results], Section], ...] = (
    opening.section,
    look.section,
    words.section,
    text_cause.section,
    denoiser_cause.section,
    information.section,
    features.section,
    changes.section,
    change.section,
    check.section,
    detour.section,
    closing.section,
)


def render(
    found: Mapping[str, xr.Dataset],
    whole: Mapping[str, Any],
    edit: Edit | None,
    tried: Changes | None = None,
) -> str:
    """Return the page of a run.

    Args:
        found: the stages' results by name.
        whole: what ``run.json`` says.
        edit: the edit that is shown in full, if there is one.
        tried: what all changes came to.
    """
    results = Results.of(found, whole, edit, tried)
    sections = [make(results) for make in SECTIONS]
    page = joined([{"found": [told for s in sections for told in s.findings]}, *(s.values for s in sections)])
    figures = joined(s.figures for s in sections)
    return filled("report.html.jinja", page, figures)


def findings(
    found: Mapping[str, xr.Dataset],
    whole: Mapping[str, Any],
    edit: Edit | None,
    tried: Changes | None = None,
) -> list[Finding]:
    """Return the sentences under "What was found"; arguments as ``render``'s."""
    results = Results.of(found, whole, edit, tried)
    return [told for make in SECTIONS for told in make(results).findings]


def filled(template: str, page: Mapping[str, Any], figures: Mapping[str, Any]) -> str:
    """Return a page of a template; all text is escaped.

    Args:
        template: name of its file.
        page: what it reads as ``page.name``.
        figures: plotly figures by the name that the template puts in ``data-figure``.
    """
    shown = {name: json.loads(str(figure.to_json())) for name, figure in figures.items()}
    return rendered(template, page=page, figures=shown, plotly_js=plots.plotly_js())


def rendered(template: str, **given: Any) -> str:
    """Return a page of a template and what it reads by name; all text is escaped."""
    loader = PackageLoader("denoscope.report")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    return environment.get_template(template).render(**given)


def written(path: str | Path, text: str) -> Path:
    """Write a page, whole or not at all, with the folders that lead to it; return its path.

    Raises:
        OSError: if it cannot be written; an older file stays as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, text.encode())
    return path


def made_by(command: str, about: Mapping[str, Any], **told: Any) -> list[tuple[str, str]]:
    """Return the table of where a result comes from.

    Args:
        command: how it was made.
        about: its provenance.
        told: what else the page says of it, first.
    """
    rows = {
        "made by": command,
        **told,
        "weights (sha256)": about["weights"],
        "scheduler": about["scheduler"],
        "number format": about["dtype"],
        **about["versions"],
    }
    return [(key, str(value)) for key, value in rows.items()]


def joined(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what all sections give, as one mapping.

    Raises:
        ValueError: if two sections give one name; the later would silently replace the earlier.
    """
    whole: dict[str, Any] = {}
    for part in parts:
        if twice := whole.keys() & part.keys():
            raise UsageError(f"two sections of the page give {', '.join(sorted(twice))}; name them apart")
        whole |= part
    return whole
