"""What does Diff-QuickFix do to the empty text, and what does keeping it cost? On the emoji model.

    python benchmarks/quickfix_keep.py             six pairs, with pictures: some twenty minutes of one core

Each pair of quickfix_settings.py is edited twice, with nothing kept and with the empty text kept. The table
is written into docs/edits.md, between ``<!-- keep -->`` and ``<!-- /keep -->``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import pages
import pandas as pd
import torch
from quickfix_settings import NEIGHBOURHOOD, PAIRS, read

import denoscope
from denoscope.analysis.edit_evaluation.evaluate import evaluate_edit
from denoscope.analysis.edit_evaluation.prompts import KINDS, evaluation_prompts
from denoscope.editing.methods.quickfix import quickfix
from denoscope.models.judges import load_judge

KEPT: Mapping[str, Sequence[str]] = {"nothing kept": (), "the empty text kept": ("",)}
OTHERS = {word: wordings[:1] for word, wordings in NEIGHBOURHOOD.items()}
BETTER = {  # what is measured, and whether it should be large
    "the empty text moved": False,
    "the unconditional output moved": False,
    "left of the edited word": False,
    "texts of other things moved": False,
    "efficacy": True,
    "generality": True,
    "specificity": True,
    "other things' fit to their text": True,
    "other things' pixels moved": False,
}


def outputs(model: Any, seeds: int, steps: int) -> tuple[list[Any], list[torch.Tensor], torch.Tensor]:
    """Steps of unguided runs without a text, what the network is given in each, and what it says."""
    texts, found = [""] * seeds, model.steps(steps)
    with torch.no_grad():
        states = list(model.sample(texts, seeds=range(seeds), steps=steps, guidance=1.0))
        given = [s.model_input for s in states]
        said = torch.stack([model.denoise(x, s, texts) for x, s in zip(given, found, strict=True)])
    return found, given, said


def moved(now: torch.Tensor, before: torch.Tensor) -> float:
    """How far rows moved, as a share of their length: the mean over rows."""
    return float(((now - before).flatten(1).norm(dim=1) / before.flatten(1).norm(dim=1)).mean())


def measure(model: Any, source: str, keep: Sequence[str], seeds: int, steps: int) -> dict[str, float]:
    """All numbers of one pair and one setting."""
    target, wordings = PAIRS[source]
    edit = quickfix(model, {source: target}, keep=keep)
    run, given, said = outputs(model, 2, steps)

    def texts() -> list[torch.Tensor]:
        others = torch.cat([read(model, word, w) for word, w in OTHERS.items()])
        return [read(model, source, wordings), others, read(model, "", ["{}"])]

    before, wanted = texts(), read(model, target, wordings)
    with torch.no_grad(), edit.applied(model):
        after = texts()
        now = torch.stack([model.denoise(x, s, [""] * 2) for x, s in zip(given, run, strict=True)])
    tried = evaluation_prompts({source: target}, wordings[:1], wordings[1:], OTHERS)
    judge = load_judge("emoji")
    frame = evaluate_edit(model, edit.applied, tried, judge=judge, seeds=range(seeds), steps=steps).summary()
    mean = frame.set_index(["kind", "measure", "state"])["mean"]
    left = (after[0] - wanted).norm(dim=1) / (before[0] - wanted).norm(dim=1)
    numbers = (
        moved(after[2], before[2]),
        moved(now.flatten(0, 1), said.flatten(0, 1)),
        float(left.mean()),
        moved(after[1], before[1]),
        *(float(mean[kind, "shown", "after"]) for kind in KINDS),
        float(mean["specificity", "fit", "after"]),
        float(mean["specificity", "moved", "after"]),
    )
    return dict(zip(BETTER, numbers, strict=True))


def table(found: pd.DataFrame) -> str:
    """Means over pairs, with the smallest and the largest; and for how many pairs keeping is better."""
    rows = []
    for name, large in BETTER.items():
        parts = [found.xs(setting, level="setting")[name] for setting in KEPT]
        percent = name in list(BETTER)[:-2]
        cells = [_cell(p, percent) for p in parts]
        gain = (parts[1] - parts[0]).round(6) * (1 if large else -1)
        rows.append((name, *cells, f"{(gain > 0).sum()}, {(gain < 0).sum()} of {len(gain)}"))
    return pages.table(("", *KEPT, "better, worse"), rows)


def _cell(values: pd.Series, percent: bool) -> str:
    if percent:
        return f"{values.mean():.1%} ({values.min():.1%} to {values.max():.1%})"
    return f"{values.mean():.3f} ({values.min():.3f} to {values.max():.3f})"


def main() -> None:
    """Measure all pairs in both settings and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2, help="pictures for each prompt")
    parser.add_argument("--steps", type=int, default=8)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, rows = denoscope.load("emoji"), {}
    for source in PAIRS:
        for setting, keep in KEPT.items():
            rows[source, setting] = measure(model, source, keep, options.seeds, options.steps)
            sys.stdout.write(f"{source}, {setting}: {rows[source, setting]}\n")
            sys.stdout.flush()
    found = pd.DataFrame.from_dict(rows, orient="index")
    found.index.names = ["pair", "setting"]
    text = table(found)
    pages.write("docs/edits.md", "keep", text)
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
