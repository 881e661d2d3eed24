"""``denoscope sites``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..opening import open_model
from ..options import Opening
from ..output import Output, rows, table


def sites(
    pattern: Annotated[str, typer.Argument(help="A glob, like 'unet/mid.*/cross_attn.*'.")] = "**",
    *,
    full_size: Annotated[str | None, typer.Option(help="A published configuration, like sdxl.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Draw the blocks into this SVG file.")] = None,
    opening: Opening = Opening(),
    to: Output = Output(),
) -> None:
    """List the places of a model that can be looked at and changed.

    Example:  denoscope sites "text_encoder/*/self_attn.out"

    Example:  denoscope sites "unet/mid.*/*" --full-size sdxl --picture sdxl.svg

    With --full-size no weights are needed, and --model does not count.
    """
    from ...models.store.disk import write_bytes
    from ...models.synthetic import sizes as shapes
    from ...report.diagram import diagram

    opened = open_model(opening, to) if full_size is None else shapes.full_size(full_size)
    frame = opened.sites(pattern).to_frame().reset_index()[["site", "kind", "shape"]]
    if picture is not None:
        write_bytes(picture, diagram(opened).encode())
    to.result({"sites": rows(frame)}, table(frame.columns, frame.itertuples(index=False)))
