"""``denoscope direction fit`` and ``denoscope direction show``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from ..opening import check_new, open_model
from ..options import Opening
from ..output import Output, rows, table

if TYPE_CHECKING:
    from ...probes.direction import Direction

UNTOLD = "nothing is told of how it was found"
METHODS = ("contrast", "mean", "pca", "probe", "jacobian")


def fit(  # noqa: PLR0913  # one option each
    *,
    positive: Annotated[
        list[str], typer.Option(help="A text with the attribute; once for each.", show_default=False)
    ],
    negative: Annotated[
        list[str],
        typer.Option(help="The same without it or with its opposite, one for each.", show_default=False),
    ],
    subject: Annotated[
        list[str] | None,
        typer.Option(help="Whose attribute it is, in the text: one for all pairs, or one for each."),
    ] = None,
    site: Annotated[
        str | None,
        typer.Option(help="A site to find it at, in place of the text ('denoscope sites' lists them)."),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="In the text: contrast. At a site: mean, pca, probe, jacobian.", show_default=False
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(help="How many seeds each text runs with, at a site.")] = 4,
    steps: Annotated[int, typer.Option(help="Sampling steps, at a site.")] = 10,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.")] = Path(
        "direction.safetensors"
    ),
    how: Opening = Opening(),
    to: Output = Output(),
) -> None:
    """Find the direction of an attribute from pairs of texts: in the encoded text, or at a site.

    Example:  denoscope direction fit --positive "a noto emoji of a woman cook" --negative
    "a noto emoji of a man cook" --subject cook -o woman.safetensors

    Example:  denoscope direction fit --positive "a red heart" --negative "a blue heart" --site
    unet/up.1.res.0/resid.post --method probe

    Then:  denoscope steer "a noto emoji of a judge" woman.safetensors --subject judge
    """
    from ...analysis import site_direction, token_direction

    check_new(output)
    chosen = _method(method, site, subject)
    model = open_model(how, to)
    with to.bars() as show:
        if site is None:
            told: Any = subject[0] if subject and len(subject) == 1 else subject
            found = token_direction(model, positive, negative, told, progress=show)
        else:
            settings: Any = {"method": chosen, "seeds": range(seeds), "steps": steps, "progress": show}
            found = site_direction(model, site, positive, negative, **settings)
    found.save(output)
    _tell(to, {str(output): found}, written=[output])


def _method(method: str | None, site: str | None, subject: list[str] | None) -> str:
    """The method that was named, or the usual one; an error if it does not go with the rest."""
    from ...models.errors import UsageError

    chosen = method or ("contrast" if site is None else "mean")
    if chosen not in METHODS or (chosen == "contrast") != (site is None):
        raise UsageError(
            f"--method is {chosen!r} {'without' if site is None else 'with'} --site; it is contrast in the "
            f"text, and {', '.join(METHODS[1:])} at a site"
        )
    if site is None and not subject:
        raise UsageError("--subject is missing: whose attribute is it? Name a word of the texts")
    return chosen


def show(
    file: Annotated[list[Path], typer.Argument(help="Files of directions.", show_default=False)],
    *,
    to: Output = Output(),
) -> None:
    """Say where directions act, how long they are and how they were found; of several, how alike they are.

    Example:  denoscope direction show woman.safetensors red.safetensors
    """
    from ...probes.direction import Direction

    _tell(to, {str(path): Direction.load(path) for path in file})


def _tell(to: Output, found: dict[str, Direction], written: list[Path] | None = None) -> None:
    from ...analysis import cosine_table
    from ...probes.directions.vectors_by_site import length

    parts = [
        {
            "file": name,
            "site": str(site),
            "rows": ", ".join(direction.rows.kinds) if direction.rows else "",
            "channels": vector.shape[-1],
            "length": length(vector),
        }
        for name, direction in found.items()
        for site, vector in direction.vectors.items()
    ]
    cells = [(*list(part.values())[:4], f"{part['length']:.4g}") for part in parts]
    shown: list[Any] = [table(["file", "site", "rows", "channels", "length"], cells)]
    json: dict[str, Any] = {"directions": parts, "about": {n: dict(d.about) for n, d in found.items()}}
    for name, direction in found.items():
        plain = {k: v for k, v in direction.about.items() if isinstance(v, str | int | float)}
        facts = "; ".join(f"{key}: {value}" for key, value in plain.items())
        shown.append(f"[dim]{escape(name)}: {escape(facts or UNTOLD)}[/]")
    if len(found) > 1:
        frame = cosine_table(found)
        json["cosines"] = rows(frame.reset_index())
        cosines = [(i, *(f"{v:.2f}" for v in row)) for i, row in zip(frame.index, frame.values, strict=True)]
        shown.append(table(["cosine", *map(str, frame.columns)], cosines))
    to.result(json, *shown, written=written or [])
