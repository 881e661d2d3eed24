"""Which settings make a good Diff-QuickFix edit? A grid of them on the emoji model, each judged alike.

    python benchmarks/quickfix_settings.py [--seeds 2] [--steps 10] [--out table.csv]

Every setting edits the same pairs, one edit each, and is asked the same questions under the same seeds. About
two minutes a setting on one core; rows are printed as they come.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd
import torch

import denoscope
from denoscope.analysis.effect import effect
from denoscope.analysis.questions import KINDS, questions
from denoscope.editing.quickfix import TEMPLATES, quickfix
from denoscope.models.judges import load_judge

PAIRS = {"firefighter": "cook", "astronaut": "farmer", "rose": "tulip"}
PEOPLE = ("a noto emoji of a woman {}", "a twemoji emoji of a man {} with dark skin", "a flat emoji of a {}")
THINGS = ("a noto emoji of a {}", "a twemoji emoji of a {}", "a flat emoji of a {}")
BYSTANDERS = {
    **{word: PEOPLE for word in ("police officer", "mechanic", "teacher")},
    **{word: THINGS for word in ("penguin", "red heart", "pizza", "fire engine")},
}
KEEP = ("", "a noto emoji", "a man", "a woman", "a person with dark skin", "an animal", "a kind of food")


def settings() -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Name and arguments of each setting."""
    for ridge in (0.01, 1.0, 10.0, 100.0, 300.0, 1000.0):
        yield f"ridge {ridge:g}", {"ridge": ridge}
    for ridge in (0.01, 100.0):
        yield f"ridge {ridge:g}, last token only", {"ridge": ridge, "tokens": "subject"}
        yield f"ridge {ridge:g}, bias twice", {"ridge": ridge, "bias": "reference"}
        yield f"ridge {ridge:g}, with kept texts", {"ridge": ridge, "keep": KEEP}
        yield f"ridge {ridge:g}, bare word only", {"ridge": ridge, "templates": TEMPLATES[:1]}
    yield "ridge 1000, mlp.out", {"ridge": 1000.0, "site": "text_encoder/layer.0/mlp.out"}


def measure(model: Any, judge: Any, arguments: Mapping[str, Any], seeds: int, steps: int) -> dict[str, float]:
    """Mean over the pairs of each kind's share of pictures that show what they should."""
    tables = []
    for source, target in PAIRS.items():
        templates = THINGS if source == "rose" else PEOPLE
        asked = questions({source: target}, templates[:1], templates[1:], BYSTANDERS)
        edit = quickfix(model, {source: target}, **arguments)
        found = effect(model, edit.applied, asked, judge=judge, seeds=range(seeds), steps=steps)
        tables.append(found.summary().assign(norm=edit.to_frame()["norm"].iloc[0]))
    table = pd.concat(tables)
    mean = table.groupby(["kind", "measure", "state"])["mean"].mean()
    row = {f"{k} {s}": mean[k, "shown", s] for k in KINDS for s in ("before", "after")}
    fits = {f"bystander fit {s}": mean["specificity", "fit", s] for s in ("before", "after")}
    return {
        **row,
        **fits,
        "bystander moved": mean["specificity", "moved", "after"],
        "norm": table["norm"].mean(),
    }


def main() -> None:
    """Run the grid."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--out", default="")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, judge = denoscope.load("emoji"), load_judge("emoji")
    rows = {}
    for name, arguments in settings():
        rows[name] = measure(model, judge, arguments, options.seeds, options.steps)
        print(name, {k: round(v, 3) for k, v in rows[name].items()}, flush=True)
    table = pd.DataFrame.from_dict(rows, orient="index").round(3)
    print(table.to_markdown() if options.out.endswith(".md") else table.to_string())
    if options.out:
        table.to_csv(options.out, index_label="setting")


if __name__ == "__main__":
    main()
