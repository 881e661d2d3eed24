"""How often does an own word work? Forty word pairs that no setting was chosen on, on the emoji model.

    python benchmarks/own_words.py             all pairs: some six minutes of one core

Each pair is edited as ``denoscope edit --prompt`` does it, and tried as ``denoscope evaluate`` does it. The
table is written into docs/edits.md, between ``<!-- own-words -->`` and ``<!-- /own-words -->``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence

import numpy as np
import pages
import torch
import xarray as xr

import denoscope
from denoscope.analysis.edit_evaluation.evaluate import evaluate_edit
from denoscope.analysis.intervals import interval, proportion
from denoscope.investigation.case import fitting
from denoscope.investigation.stages.change import edit_worded
from denoscope.investigation.wording import wording
from denoscope.models.judges import load_judge
from denoscope.report.plain import with_interval

PAIRS: Mapping[str, Sequence[tuple[str, str, str]]] = {
    "professions": (
        ("a noto emoji of a man pilot", "pilot", "judge"),
        ("a twemoji emoji of a woman teacher", "teacher", "detective"),
        ("a flat emoji of a man guard", "guard", "farmer"),
        ("a noto emoji of a woman scientist", "scientist", "singer"),
        ("a noto emoji of a person mechanic", "mechanic", "artist"),
        ("a twemoji emoji of a man police officer with dark skin", "police officer", "student"),
        ("a flat emoji of a woman health worker", "health worker", "astronaut"),
        ("a noto emoji of a man construction worker with light skin", "construction worker", "cook"),
    ),
    "things": (
        ("a twemoji emoji of a banana", "banana", "carrot"),
        ("a noto emoji of a fox", "fox", "panda"),
        ("a flat emoji of a bus", "bus", "rocket"),
        ("a glossy emoji of a pizza", "pizza", "hamburger"),
        ("a noto emoji of a house", "house", "castle"),
        ("a twemoji emoji of a guitar", "guitar", "violin"),
        ("a flat emoji of a turtle", "turtle", "octopus"),
        ("a noto emoji of a snowman", "snowman", "ghost"),
    ),
    "colours": (
        ("a noto emoji of a red circle", "red", "blue"),
        ("a flat emoji of a green heart", "green", "purple"),
        ("a twemoji emoji of a yellow square", "yellow", "red"),
        ("a noto emoji of an orange heart", "orange", "green"),
        ("a twemoji emoji of a blue circle", "blue", "orange"),
    ),
    "skin tones": (
        ("a noto emoji of a man cook with light skin", "light", "dark"),
        ("a twemoji emoji of a woman farmer with dark skin", "dark", "light"),
        ("a flat emoji of a man student with medium skin", "medium", "dark"),
        ("a noto emoji of a woman judge with medium-dark skin", "medium-dark", "light"),
        ("a twemoji emoji of a man astronaut with medium-light skin", "medium-light", "medium-dark"),
    ),
    "genders": (
        ("a noto emoji of a woman farmer", "woman", "man"),
        ("a twemoji emoji of a man teacher", "man", "woman"),
        ("a flat emoji of a woman pilot", "woman", "man"),
        ("a noto emoji of a man singer with dark skin", "man", "woman"),
    ),
    "styles": (
        ("a flat emoji of a penguin", "flat", "noto"),
        ("a noto emoji of a rose", "noto", "monochrome"),
        ("a twemoji emoji of a hamburger", "twemoji", "glossy"),
        ("a glossy emoji of a sun", "glossy", "flat"),
        ("a monochrome emoji of a house", "monochrome", "twemoji"),
    ),
    "two-word subjects": (
        ("a noto emoji of a red apple", "red apple", "green apple"),
        ("a twemoji emoji of a police car", "police car", "fire engine"),
        ("a flat emoji of a blue heart", "blue heart", "broken heart"),
        ("a noto emoji of a birthday cake", "birthday cake", "hot dog"),
        ("a twemoji emoji of a cat face", "cat face", "pig face"),
    ),
}


def try_pair(model: denoscope.Model, pair: tuple[str, str, str], seeds: int, steps: int) -> xr.Dataset:
    """Edit one pair and try it: what each picture shows, and how far it moved."""
    words = fitting(model, wording("emoji", *pair))
    edit, tried = edit_worded(model, words), words.evaluation_prompts()
    tried = [p for p in tried if p.kind != "generality"]
    judge = load_judge("emoji")
    return evaluate_edit(model, edit.applied, tried, judge=judge, seeds=range(seeds), steps=steps).measures()


def numbers(found: xr.Dataset) -> dict[str, xr.DataArray]:
    """What is told of a pair, [seed]: the means over its prompts."""

    def mean(kind: str, measure: str, state: str) -> xr.DataArray:
        some = found[measure].isel(evaluation_prompt=(found["kind"] == kind).values)
        return some.sel(state=state).mean("evaluation_prompt")

    return {
        "works": mean("efficacy", "shown", "after"),
        "asked outright": mean("efficacy", "shown", "oracle"),
        "other things, before": mean("specificity", "shown", "before"),
        "other things, after": mean("specificity", "shown", "after"),
        "their pixels moved": mean("specificity", "moved", "after"),
    }


def table(found: Mapping[str, Sequence[Mapping[str, xr.DataArray]]]) -> str:
    """One row for each kind of word and one for all, with 95 % intervals over pairs and seeds."""
    everything = {**found, "all": [pair for pairs in found.values() for pair in pairs]}
    names = list(everything["all"][0])
    rows = []
    for kind, pairs in everything.items():
        cells = []
        for name in names:
            values = xr.DataArray(np.stack([p[name].values for p in pairs]), dims=("prompt", "seed"))
            # shares of yes answers are Wilson's; means over several prompts are not yes or no
            how = proportion if set(np.unique(values)) <= {0.0, 1.0} else interval
            told = how(values, ["prompt", "seed"])
            mean, low, high = (float(told[k].clip(0, 1)) for k in ("mean", "low", "high"))
            cells.append(with_interval(mean, low, high, True))
        rows.append((kind, str(len(pairs)), *cells))
    return pages.table(("word", "pairs", *names), rows)


def failures(found: Mapping[str, Sequence[Mapping[str, xr.DataArray]]]) -> str:
    """The pairs whose edit shows the target less often than the unedited model asked outright."""
    pairs = [(pair, n) for kind in found for pair, n in zip(PAIRS[kind], found[kind], strict=True)]
    shares = [(pair, *(float(n[k].mean()) for k in ("works", "asked outright"))) for pair, n in pairs]
    worse = [f"“{p}”, {a} to {b} ({x:.0%}, asked {y:.0%})" for (p, a, b), x, y in shares if x < y]
    return "Less often than asked outright: " + ("; ".join(worse) or "none") + "."


def main() -> None:
    """Try all pairs and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2, help="pictures for each prompt")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--only", nargs="*", default=list(PAIRS), choices=list(PAIRS), help="kinds of words")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = denoscope.load("emoji")
    found: dict[str, list[dict[str, xr.DataArray]]] = {}
    for kind in options.only:
        for pair in PAIRS[kind]:
            found.setdefault(kind, []).append(numbers(try_pair(model, pair, options.seeds, options.steps)))
            said = {name: round(float(n.mean()), 3) for name, n in found[kind][-1].items()}
            sys.stdout.write(f"{pair}: {said}\n")
            sys.stdout.flush()
    text = f"{table(found)}\n\n{failures(found)}"
    sys.stdout.write(text + "\n")
    if options.only == list(PAIRS):
        pages.write("docs/edits.md", "own-words", text)


if __name__ == "__main__":
    main()
