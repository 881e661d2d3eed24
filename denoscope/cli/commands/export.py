"""``denoscope export``."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.markup import escape

from ...models.errors import UsageError
from ...models.store.disk import check_writable
from ..opening import check_new, open_model
from ..options import Opening
from ..output import Output, rows, table

if TYPE_CHECKING:
    import pandas as pd

    from ...editing.edit import Edit
    from ...models.base import Model


class Format(StrEnum):
    """What an edit is written as."""

    LORA = "lora"
    KOHYA = "kohya"
    PIPELINE = "pipeline"
    CHECKPOINT = "checkpoint"


ToOpt = Annotated[
    Format,
    typer.Option(
        "--to",
        help="lora: diffusers' load_lora_weights. kohya: a LoRA for A1111, ComfyUI, sd-scripts. "
        "pipeline: the whole edited model as a folder. checkpoint: the same as one file in the original "
        "layout.",
    ),
]
RankOpt = Annotated[
    int | None,
    typer.Option(help="Of a LoRA's factors, at most; the edit's own rank if left out.", show_default=False),
]
OutputOpt = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="What to write; beside the edit if left out.", show_default=False),
]


def export(
    edit: Annotated[
        Path, typer.Argument(help="The edit's file, as denoscope edit writes it.", show_default=False)
    ],
    *,
    to_format: ToOpt = Format.LORA,
    rank: RankOpt = None,
    output: OutputOpt = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
    opening: Opening = Opening(),
    to: Output = Output(),
) -> None:
    """Write an edit as other tools read it.

    Example:  denoscope export cook.safetensors --to kohya --output cook-lora.safetensors

    Example:  denoscope export cook.safetensors --to pipeline --output edited
    """
    from ...editing import Edit

    if rank is not None and to_format not in {Format.LORA, Format.KOHYA}:
        raise UsageError(
            f"--rank {rank} is of LoRAs; leave it out for --to {to_format}, which holds all of the edit"
        )
    suffix = "" if to_format is Format.PIPELINE else ".safetensors"
    target = output or edit.with_name(f"{edit.stem}-{to_format}{suffix}")
    check_writable(target.parent) if force and to_format is not Format.PIPELINE else check_new(target)
    made, model = Edit.load(edit), open_model(opening, to)
    target.parent.mkdir(parents=True, exist_ok=True)
    kept = _written(model, made, target, to_format, rank)
    found: dict[str, Any] = {
        "edit": str(edit),
        "id": made.id,
        "format": str(to_format),
        "output": str(target),
    }
    shown: list[Any] = [f"{escape(repr(made))}\nas {to_format} in [bold]{escape(str(target))}[/]"]
    if kept is not None:
        found["kept"] = rows(kept.reset_index())
        shown.append(table(["weight", *kept.columns], map(_in_per_cent, kept.itertuples())))
    to.result(found, *shown, written=[target])


def _written(
    model: Model, made: Edit, target: Path, to_format: Format, rank: int | None
) -> pd.DataFrame | None:
    """Write it; return what a LoRA keeps of each change."""
    from ...editing import export as exporting

    if to_format is Format.PIPELINE:
        exporting.pipeline(model, made, target)
        return None
    if to_format is Format.CHECKPOINT:
        exporting.checkpoint(model, made, target)
        return None
    how: Literal["kohya", "diffusers"] = "kohya" if to_format is Format.KOHYA else "diffusers"
    kept: pd.DataFrame = exporting.lora(model, made, target, rank=rank, format=how)
    return kept


def _in_per_cent(row: Iterable[Any]) -> list[Any]:
    return [f"{v:.0%}" if isinstance(v, float) else v for v in row]
