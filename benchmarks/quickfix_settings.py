"""Which settings make a good Diff-QuickFix edit? Many of them, each judged alike, on the emoji model.

    python benchmarks/quickfix_settings.py                 what the texts say: seconds a setting
    python benchmarks/quickfix_settings.py --pictures 1    and one picture for each prompt: minutes a setting

Text columns are means over pairs, in wordings that were not edited, of the texts as the denoiser reads them.
``left``: how far the edited text is from the target's, as a share of how far it was before (0: it reads
the same). ``moved``: how far the texts of other things moved, as a share of their length. Picture columns are
shares of pictures that show what they should, before -> after.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
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


def settings() -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Name and arguments of each setting; they keep nothing but what they say."""
    yield "default", {}
    for name, arguments in _others():
        yield name, {"keep": (), **arguments}


def _others() -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield "keep nothing", {}
    for ridge in (0.0001, 0.01, 1.0, 10.0, 100.0, 300.0, 1000.0):
        yield f"ridge {ridge:g}", {"ridge": ridge}
    yield "ridge 0.01, last token only", {"ridge": 0.01, "tokens": "subject"}
    yield "last token only", {"tokens": "subject"}
    yield "ridge 0.01, bias twice", {"ridge": 0.01, "bias": "reference"}
    yield "bias twice", {"bias": "reference"}
    yield "keep seven texts", {"keep": KEEP}
    yield "keep 16 texts of other things", {"keep": OTHERS}
    yield "bare word only", {"templates": TEMPLATES[:1]}
    yield "layer 0, mlp.out", {"site": "text_encoder/layer.0/mlp.out"}
    yield "layer 1, self_attn.out", {"site": "text_encoder/layer.1/self_attn.out"}


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


def pictures(model: Any, arguments: Mapping[str, Any], seeds: int, steps: int) -> dict[str, str | float]:
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
        "neighbourhood fit": fit,
        "neighbourhood pixels moved": mean["specificity", "moved", "after"],
    }


def main() -> None:
    """Try every setting."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=0, metavar="N", help="pictures for each prompt")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--only", nargs="*", default=[], help="names of settings")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, rows = denoscope.load("emoji"), {}
    for name, arguments in settings():
        if options.only and name not in options.only:
            continue
        rows[name] = texts(model, arguments)
        if options.pictures:
            rows[name] |= pictures(model, arguments, options.pictures, options.steps)
            print(name, rows[name], flush=True)
    print(pd.DataFrame.from_dict(rows, orient="index").round(3).to_string())


if __name__ == "__main__":
    main()
