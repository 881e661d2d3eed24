"""Draw the training curves; the only file that imports matplotlib."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure


def curves(logs: Mapping[str, tuple[Path, str]], path: Path) -> None:
    """Draw one column of each log against training time.

    Args:
        logs: title to CSV file and column; one or more.
        path: the PNG to write.
    """
    figure = Figure(figsize=(3.4 * len(logs), 2.6), layout="constrained")
    for axes, (title, (file, column)) in zip(
        figure.subplots(1, len(logs), squeeze=False)[0], logs.items(), strict=True
    ):
        with file.open(newline="") as rows:
            points = [(float(row["seconds"]) / 60, float(row[column])) for row in csv.DictReader(rows)]
        axes.plot([minute for minute, _ in points], [value for _, value in points], linewidth=1)
        axes.set(title=title, xlabel="minutes", ylabel=column)
    figure.savefig(path, dpi=110)
