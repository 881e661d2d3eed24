"""``denoscope studies``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...models.errors import UsageError
from ..opening import check_new
from ..output import Output, duration, table

if TYPE_CHECKING:
    from ...models.store.studies import StudyRecord

KINDS = (".parquet", ".nc", ".zarr")


def studies(
    folder: Annotated[Path, typer.Argument(help="A store, or a folder of stores.", show_default=False)],
    *,
    export: Annotated[
        Path | None,
        typer.Option("--export", help="Write the scores to this .parquet, .nc or .zarr.", show_default=False),
    ] = None,
    to: Output = Output(),
) -> None:
    """Tell what is in a store: how far each study is, how long it still takes, what it cost.

    Example:  denoscope studies runs --json
    """
    from ...models.store.studies import read_studies

    if export is not None:
        check_new(export)
        if export.suffix not in KINDS:
            raise UsageError(f"--export is {str(export)!r}; its name ends in {', '.join(KINDS)}")
    found = read_studies(folder)
    written = []
    if export is not None:
        _export(folder, export)
        written = [export]
    columns = ("study", "store", "units", "left", "spent", "rows", "MB", "state")
    shown = table(columns, (_cells(one) for one in found))
    records = [{**asdict(one), "folder": str(one.folder), "left": one.left} for one in found]
    to.result({"studies": records}, shown, written=written)


def _cells(one: StudyRecord) -> tuple[str, ...]:
    state = "done" if one.done else "not done"
    left = "?" if one.left is None else duration(one.left)
    return (f"{one.what} {one.id[:8]}", str(one.folder), f"{one.units} of {one.total}", left,
            duration(one.seconds), str(one.rows), f"{one.bytes / 1e6:.1f}", state)  # fmt: skip


def _export(folder: Path, path: Path) -> None:
    import pandas as pd

    from ...analysis.scores import save_store
    from ...models.store.disk import new_file
    from ...models.store.studies import units_table

    frame = pd.DataFrame(units_table(folder))
    if frame.empty:
        raise UsageError(f"{folder} holds no scores yet, so there is nothing to export")
    if path.suffix == ".parquet":
        try:
            with new_file(path) as part:
                frame.to_parquet(part, index=False)
        except ImportError as error:
            raise UsageError('Parquet needs pyarrow: pip install "denoscope[tables]"') from error
        return
    data = frame.rename_axis("row").to_xarray()
    if path.suffix == ".zarr":
        save_store(data, path)
    else:
        with new_file(path) as part:
            data.to_netcdf(part, engine="scipy")
