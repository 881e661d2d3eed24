"""Small circuits of emoji, for docs/circuits.md: ``python benchmarks/circuits.py``.

Two sites are sampled once over many prompts, and a dictionary is trained at each; then circuits of several
words are traced at several steps, with all their checks. Some ten minutes of one core; a run that was stopped
goes on where it was, in --output.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pages import ROOT, table, write
from word_bias import world

import denoscope
from denoscope.analysis import Circuit, trace_circuit
from denoscope.probes import Dictionary, Learning, collect_activations, train_dictionary

PAGE = "docs/circuits.md"
SOURCE, TARGET = "unet/up.0.attn.1/resid.post", "unet/up.1.attn.1/resid.post"
SAMPLES, STEPS, UPDATES, ROWS = 160, 10, 1000, 512
FEATURES = 8
WORDS = [
    ("a noto emoji of a woman firefighter", "woman"),
    ("a noto emoji of a woman firefighter", "firefighter"),
    ("a noto emoji of a cook with dark skin", "dark"),
    ("a noto emoji of a red heart", "red"),
    ("a noto emoji of a red heart", "heart"),
    ("a flat emoji of a fox", "fox"),
]
AT = (1, 4)
SEED = 5000
"""None of those that the dictionaries saw."""


def main() -> None:
    """Measure, and write the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "circuits", help="activations, fits")
    output = parser.parse_args().output
    torch.set_num_threads(1)
    model = denoscope.load("emoji")
    source, target = trained(model, output)
    found = [
        trace_circuit(
            model, source, target, prompt, word, seed=SEED, step=step, features=FEATURES, steps=STEPS
        )
        for step in AT
        for prompt, word in WORDS
    ]
    write(PAGE, "circuits", told(source, target) + table(HEADER, map(line, found)))


def trained(model: Any, output: Path) -> tuple[Dictionary, Dictionary]:
    """A dictionary at each site."""
    every = world()["concepts"]
    prompts = [f"a noto emoji of a {every[i % len(every)]}" for i in range(SAMPLES)]
    run: Any = {"prompts": prompts, "seeds": range(SAMPLES), "steps": STEPS}
    collect_activations(model, [SOURCE, TARGET], store=output / "activations", batch=16, **run)
    how = Learning(updates=UPDATES, rows=ROWS)
    made = [train_dictionary(model, site, store=output, learning=how, **run) for site in (SOURCE, TARGET)]
    return made[0], made[1]


def told(*ends: Dictionary) -> str:
    """What the dictionaries are like."""
    each = [
        f"`{d.site}`: {d.width} features, k {d.k}, explained {d.record['held_out']['explained']:.2f}, dead "
        f"{d.record['held_out']['dead']:.2f}"
        for d in ends
    ]
    return (
        f"emoji, dictionaries of {SAMPLES} samples of {STEPS} steps and {UPDATES} updates of {ROWS} rows "
        f"({'; '.join(each)}); {FEATURES} features of each site, seed {SEED}:\n\n"
    )


HEADER = ("word", "of", "step", "carried", "necessary", "random", "sufficient", "random", "edges: r", "slope",
          "random: r", "slope", "gap")  # fmt: skip


def line(found: Circuit) -> tuple[str, ...]:
    """A row of the table."""
    about, faithful, agree = found.data.attrs, found.faithfulness(), found.agreement()
    numbers = []
    for name in ("necessary", "sufficient"):
        of = faithful.loc[name]
        numbers += [f"{of['circuit']:.2f}", f"{of['random']:.2f} ({of['low']:.2f} to {of['high']:.2f})"]
    edges = [
        f"{agree.loc[row, column]:.2f}" for row in ("graph", "random") for column in ("pearson", "slope")
    ]
    carried = f"{about['through_targets']:.2f}"
    gap = f"{np.float64(about['gap']):.0e}"
    return (about["word"], about["prompt"], str(about["step"]), carried, *numbers, *edges, gap)


if __name__ == "__main__":
    main()
