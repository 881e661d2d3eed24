"""Which settings make a good Diff-QuickFix edit? Many of them, each judged alike, on the emoji model.

    python benchmarks/quickfix_settings.py       what the texts say; for some settings pictures: 20 minutes

Writes two tables of docs/edits.md. Text columns are means over pairs, in wordings that were not edited, of
the texts as the denoiser reads them. ``left``: how far the edited text is from the target's, as a share of
how far it was before (0: it reads the same). ``moved``: how far the texts of other things moved, as a share
of their length. Picture columns are shares of pictures that show what they should, before -> after.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import pages
import pandas as pd
import rich.console
import rich.progress
import torch
from torch import Tensor

import denoscope
from denoscope.analysis.edit_evaluation.evaluate import evaluate_edit
from denoscope.analysis.edit_evaluation.prompts import KINDS, evaluation_prompts
from denoscope.editing.methods.quickfix import TEMPLATES, quickfix
from denoscope.models.judges import load_judge

WORDINGS = (
    "a noto emoji of a woman {}",
    "a twemoji emoji of a man {} with dark skin",
    "a flat emoji of a {}",
)
THINGS = ("a noto emoji of a {}", "a twemoji emoji of a {}", "a flat emoji of a {}")
PAIRS = {
    "firefighter": ("cook", WORDINGS),
    "astronaut": ("farmer", WORDINGS),
    "cat": ("dog", THINGS),
    "red heart": ("blue heart", THINGS),
    "rose": ("tulip", THINGS),
    "penguin": ("owl", THINGS),
}
PAINTED = ("firefighter", "astronaut", "rose")
NEIGHBOURHOOD = {
    **dict.fromkeys(("police officer", "mechanic", "teacher"), WORDINGS[:2]),
    **dict.fromkeys(("lion", "yellow square", "pizza", "fire engine"), THINGS[1:]),
}
KEEP = ("", "a noto emoji", "a man", "a woman", "a person with dark skin", "an animal", "a kind of food")


OTHERS = (
    *(w.replace("{}", word) for word in ("singer", "judge", "pilot", "student") for w in WORDINGS[:2]),
    *(w.replace("{}", word) for word in ("dolphin", "wolf", "lemon", "tractor") for w in THINGS[1:]),
)


SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "default: the empty text kept": {},
    "nothing kept, as below where no other is named": {},
    **{f"λ = {ridge:g}": {"ridge": ridge} for ridge in (0.0001, 0.01, 1.0, 10.0, 100.0, 300.0, 1000.0)},
    "λ = 0.01, rows of the last token only": {"ridge": 0.01, "tokens": "subject"},
    "rows of the last token only": {"tokens": "subject"},
    '`bias="reference"`': {"bias": "reference"},
    'seven general texts kept ("a man", "an animal" ...)': {"keep": KEEP},
    "16 texts of other things kept, in the wordings asked about": {"keep": OTHERS},
    "one template, the bare word": {"templates": TEMPLATES[:1]},
    "`text_encoder/layer.0/mlp.out`": {"site": "text_encoder/layer.0/mlp.out"},
    "`text_encoder/layer.1/self_attn.out`": {"site": "text_encoder/layer.1/self_attn.out"},
}
PICTURED = (*list(SETTINGS)[:2], "λ = 300", "λ = 0.01", "λ = 0.01, rows of the last token only")


def arguments_of(name: str) -> Mapping[str, Any]:
    """Arguments of a setting; all but the first keep nothing but what they say."""
    return SETTINGS[name] if name == next(iter(SETTINGS)) else {"keep": (), **SETTINGS[name]}


def read(model: Any, word: str, wordings: Sequence[str]) -> Tensor:
    """A word's wordings, as the denoiser reads them: [wording, token x channel]."""
    with torch.no_grad():
        return torch.stack(
            [p.embeds for p in model.encode([w.replace("{}", word) for w in wordings])]
        ).flatten(1)


def texts(model: Any, arguments: Mapping[str, Any]) -> dict[str, float]:
    """What the texts say of a setting: means over the pairs."""
    left, moved = [], []
    others = torch.cat([read(model, word, wordings) for word, wordings in NEIGHBOURHOOD.items()])
    for source, (target, wordings) in PAIRS.items():
        before, wanted = read(model, source, wordings), read(model, target, wordings)
        with quickfix(model, {source: target}, **arguments).applied(model):
            after = read(model, source, wordings)
            now = torch.cat([read(model, word, w) for word, w in NEIGHBOURHOOD.items()])
        left.append(((after - wanted).norm(dim=1) / (before - wanted).norm(dim=1)).mean())
        moved.append(((now - others).norm(dim=1) / others.norm(dim=1)).mean())
    return {"left": float(torch.stack(left).mean()), "moved": float(torch.stack(moved).mean())}


def pictures(model: Any, arguments: Mapping[str, Any], seeds: int, steps: int) -> dict[str, str]:
    """What pictures show of a setting: means over some of the pairs."""
    tables = []
    for source in PAINTED:
        target, wordings = PAIRS[source]
        tried = evaluation_prompts({source: target}, wordings[:1], wordings[1:], NEIGHBOURHOOD)
        edit = quickfix(model, {source: target}, **arguments)
        found = evaluate_edit(
            model, edit.applied, tried, judge=load_judge("emoji"), seeds=range(seeds), steps=steps
        )
        tables.append(found.summary())
    mean = pd.concat(tables).groupby(["kind", "measure", "state"])["mean"].mean()
    shown = {k: f"{mean[k, 'shown', 'before']:.0%} -> {mean[k, 'shown', 'after']:.0%}" for k in KINDS}
    fit = f"{mean['specificity', 'fit', 'before']:.2f} -> {mean['specificity', 'fit', 'after']:.2f}"
    return {
        **shown,
        "other things' fit to their text": fit,
        "their pixels moved": f"{mean['specificity', 'moved', 'after']:.3f}",
    }


def main() -> None:
    """Try every setting, and write the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1, help="pictures for each prompt")
    parser.add_argument("--steps", type=int, default=8)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = denoscope.load("emoji")
    said = {name: texts(model, arguments_of(name)) for name in SETTINGS}
    rows = [(name, f"{found['left']:.2f}", f"{found['moved']:.2f}") for name, found in said.items()]
    pages.write("docs/edits.md", "settings", pages.table(("setting", "left", "moved"), rows))
    seen = {
        name: pictures(model, arguments_of(name), options.seeds, options.steps)
        for name in rich.progress.track(PICTURED, "pictures", console=rich.console.Console(stderr=True))
    }
    header = ("setting", *next(iter(seen.values())))
    rows = [(name, *found.values()) for name, found in seen.items()]
    pages.write("docs/edits.md", "pictured", pages.table(header, rows))


if __name__ == "__main__":
    main()
