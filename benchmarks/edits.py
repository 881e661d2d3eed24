"""Which method of editing does what: every one on fifty concepts, with all measures of docs/bench-edits.md.

    python benchmarks/edits.py                     the UNet: more than an hour of one core
    python benchmarks/edits.py --model emoji-dit   the transformer
    python benchmarks/edits.py --quick             a first look, which writes no page

Runs ``denoscope.bench.edits`` into --folder, under a hash of the weights, where a run that was stopped goes
on. The tables go into docs/bench-edits.md, between ``<!-- unet -->`` and ``<!-- /unet -->``, or ``dit``; the
method that came out best into denoscope/bench/data/best.json, where ``denoscope investigate`` finds it.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

import pages
import torch
from faster import bfloat16, said

from denoscope import load
from denoscope.bench import Best, EditBenchmark, cost, edits, ranked
from denoscope.bench.page import PAGE, many_table, measured
from denoscope.investigation.stages.change import EDITS
from denoscope.models.store.fingerprint import fingerprint

MODELS = ("emoji", "emoji-dit")
BEST = pages.ROOT / "denoscope" / "bench" / "data" / "best.json"


def told(found: EditBenchmark) -> str:
    """The tables of a benchmark: all measures of every method, and many edits beside each other."""
    about = found.about
    settings = (
        f"{found.cells['concept'].nunique()} concepts, {len(about['seeds'])} seeds, {about['steps']} steps, "
        f"guidance {about['guidance']:g}. After the edit, with 95 % intervals over concepts and seeds; the "
        f"last two lines are the unedited model. {said()}"
    )
    rows = dict(measured(found, found.summary()))
    columns = list(next(iter(rows.values())))
    first = pages.table(
        ("method", *columns), [(name, *(row.get(c, "") for c in columns)) for name, row in rows.items()]
    )
    best = pages.table(
        ("method", "score", "first in resamples", "concepts"),
        [
            (
                r.method,
                pages.bounds({"mean": r.score, "low": r.low, "high": r.high}),
                f"{r.first:.0%}",
                str(r.concepts),
            )
            for r in ranked(found).itertuples()
        ],
    )
    many = many_table(found.many)
    lines = [tuple(str(cell) for cell in row) for row in many["rows"]]
    score = "In one number, the harmonic mean of efficacy, generality and what neighbours keep:"
    beside = f"Many edits beside each other:\n\n{pages.table(many['columns'], lines)}"
    return "\n\n".join((settings, first, score, best, beside))


def keep_best(found: EditBenchmark) -> None:
    """Write down which method `denoscope investigate` takes by itself."""
    kept = json.loads(BEST.read_text())
    one = Best.of(found, EDITS)
    BEST.write_text(json.dumps(dict(sorted({**kept, one.model: asdict(one)}.items())), indent=1) + "\n")


def main() -> None:
    """Run the benchmark and write the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="emoji", choices=MODELS)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--folder", type=Path, default=pages.ROOT / "build" / "bench-edits")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load(options.model)
    folder = options.folder / fingerprint(model)[:16]
    with bfloat16():
        sys.stdout.write(f"{cost(model, folder=folder, quick=options.quick)}\n")
    sys.stdout.flush()
    with bfloat16():
        found = edits(model, folder=folder, quick=options.quick)
    text = told(found)
    sys.stdout.write(f"{text}\n\n{folder / PAGE}\n")
    if options.quick:
        return
    keep_best(found)
    if options.model == "emoji":
        pages.write("docs/bench-edits.md", "unet", text)
    else:
        pages.write("docs/bench-edits.md", "dit", text)


if __name__ == "__main__":
    main()
