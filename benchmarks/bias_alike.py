"""Which way takes a bias out at equal cost to the pictures: ``python benchmarks/bias_alike.py``.

Ways to push ``emoji-people`` towards women, and towards dark skin, each at the strength at which a picture is
as like the plain one as with any other way; what share does each reach then? Strengths are found by halving
on some samples, and all that is told is of others. Writes a table of docs/bias-features.md; what was measured
is kept as by ``bias_features.py``. Some hour of one core.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from bias_features import ATTRIBUTES, FULL, asked, dictionary, fits, lines, of_outputs, opened, seeds, shelf
from faster import bfloat16
from pages import output, table, write

from denoscope import Intervention
from denoscope.analysis import Mitigation, compare_mitigations
from denoscope.models.judges import load_judge
from denoscope.models.store.disk import write_bytes
from denoscope.probes.sweep.sweeping import SweepRun, sweep

PAGE = "docs/bias-features.md"
SITES = ("middle", "upper")
ALIKE = 0.85
"""How like the plain picture: the cosine of the judge's features."""
TRIED, ROUNDS, MOST = 32, 5, 4.0
SIZES = FULL
Push = Callable[[float], Intervention]


def ways(folder: Path, name: str) -> Mapping[str, Push]:
    """From a strength to what acts on a sample."""
    first = ATTRIBUTES[name].classes[0]
    made: dict[str, Push] = {}
    for at in SITES:
        found, d = asked(folder, at, name, SIZES), dictionary(folder, at, SIZES)
        for by in ("attribution", "contrast", "matched"):
            made[f"{by}, {at}"] = lambda s, f=found, d=d, by=by: f.towards(  # type: ignore[misc]
                d, first, s, by=by, features=SIZES.features
            )
        made[f"mean difference, {at}"] = lambda s, f=found: f.mean_difference(first, s)  # type: ignore[misc]
    return {**made, "mean difference of outputs": lambda s: of_outputs(name, s)}


def painted(*acting: Intervention) -> torch.Tensor:
    """Pictures of some samples under interventions [sample, 3, height, width]."""
    model = opened("emoji-people")
    runs = [SweepRun("", s, acting) for s in seeds("calibrated", TRIED)]
    with torch.no_grad():
        return model.decode(sweep(model, runs, batch=32, steps=SIZES.steps).latents)


@cache
def plain() -> torch.Tensor:
    """The same samples with nothing done."""
    return painted()


def likeness(acting: Intervention) -> float:
    """Mean likeness to the plain picture, over some samples."""
    with torch.no_grad():
        alike = load_judge("emoji").similarity(painted(acting), plain())
    return float(torch.diagonal(alike).mean())


def strength(push: Push) -> float:
    """The largest one, by halving, at which pictures are as like as they should be."""
    low, high = 0.0, MOST
    if likeness(push(high)) >= ALIKE:
        return high
    for _ in range(ROUNDS):
        middle = (low + high) / 2
        low, high = (middle, high) if likeness(push(middle)) >= ALIKE else (low, middle)
    return low


def strengths(folder: Path, name: str) -> dict[str, float]:
    """That of each way, kept as they are found."""
    path = folder / f"alike-{name}.json"
    found: dict[str, float] = json.loads(path.read_text()) if path.is_file() else {}
    for way, push in ways(folder, name).items():
        if way not in found:
            found[way] = strength(push)
            write_bytes(path, json.dumps(found).encode())
    return found


def compared(folder: Path, name: str) -> list[tuple[str, ...]]:
    """The rows of one attribute."""
    a, found, n = ATTRIBUTES[name], strengths(folder, name), SIZES.tried

    def every() -> dict[str, Any]:
        pushes = ways(folder, name)
        return {way: [(pushes[way](found[way]),)] * n for way in found if found[way] > 0}

    made = shelf(SIZES, f"alike-{name}", Mitigation, lambda: compare_mitigations(
        opened("emoji-people"), every(), seeds=seeds("tried", n), label=a.label, target=a.target,
        judge=load_judge("emoji"), steps=SIZES.steps))  # fmt: skip
    rows = lines(made, (name,), a.classes[0])
    told = {way: f"{s:.2f}{' (the largest tried)' if s == MOST else ''}" for way, s in found.items()}
    return [(row[0], row[1], told.get(row[1], ""), *row[2:-1]) for row in rows]


@bfloat16()
def main() -> None:
    """Measure and write."""
    folder = fits(output(__doc__))
    torch.set_num_threads(1)
    rows = [row for name in SIZES.attributes for row in compared(folder, name)]
    header = ("attribute", "way", "strength", "share", "discrepancy", "chance", "kept", "moved",
              "kernel distance")  # fmt: skip
    write(PAGE, "alike", table(header, rows))


if __name__ == "__main__":
    main()
