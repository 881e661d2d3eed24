"""The papers' experiments with words, on ``emoji``: ``python benchmarks/word_experiments.py``.

Bias of words, and debiasing by it (``word_bias.py``); kinds of pairs of words; and what foretells how far a
picture moves without a word. Writes the tables of docs/word-experiments.md. Results are kept in --output
under a hash of the weights: a run that was stopped goes on. Some 90 minutes of one core.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import word_bias as bias
from pages import ROOT, bounds, table, write
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from word_bias import FULL, Sizes, kept, model, world

from denoscope.analysis import PairKinds, WordChanges, pair_kinds, word_changes
from denoscope.models.judges import load_judge
from denoscope.models.store.fingerprint import fingerprint

PAGE = "docs/word-experiments.md"
BETWEEN = "a noto emoji of a {} and a {}"
TOGETHER = "a noto emoji of a {} {}"
KINDS: Mapping[str, tuple[str, Sequence[str]]] = {
    "homonyms": (TOGETHER, ("hot dog", "fire engine", "cherry blossom", "palm tree", "top hat", "lady beetle",
                            "flying saucer", "police car")),
    "colours": (TOGETHER, ("red heart", "blue circle", "green square", "yellow heart", "purple circle",
                           "brown square", "red apple", "green apple")),
    "near synonyms": (BETWEEN, ("boy child", "girl child", "baby child", "man person", "woman person",
                                "automobile taxi", "ship sailboat")),
    "co-hyponyms": (BETWEEN, ("rose tulip", "dog cat", "lemon banana", "guitar violin", "bus ambulance",
                              "cook farmer", "shark dolphin", "pizza hamburger")),
    "unrelated": (BETWEEN, ("dog rocket", "rose bus", "cat pizza", "guitar lemon", "cook castle", "star frog",
                            "house fish", "crown bear")),
}  # fmt: skip
PARTS = ("redundancy", "synergy", "total")


def pairs(folder: Path, sizes: Sizes) -> str:
    """Parts of pairs, kind by kind, and how far each kind is from unrelated pairs."""
    kinds = {
        kind: [(wording.format(*words.split()), *words.split()) for words in some[: sizes.pairs]]
        for kind, (wording, some) in KINDS.items()
    }
    how: dict[str, Any] = {"seeds": range(sizes.seeds), "steps": sizes.steps, "levels": sizes.levels}
    found = kept(folder, "pairs", PairKinds, lambda: pair_kinds(model(), kinds, store=folder / "bank", **how))
    told, apart = found.summary().set_index(["kind", "part"]), found.contrasts()
    apart = apart[apart["other"] == "unrelated"].rename(columns={"difference": "mean"})
    apart = apart.set_index(["kind", "part"])
    rows = []
    for kind in kinds:
        own = [bounds(told.loc[(kind, part)], 0) for part in PARTS]
        other = ["" if kind == "unrelated" else bounds(apart.loc[(kind, p)], 0) for p in PARTS[:2]]
        share = f"{told.loc[(kind, 'synergy'), 'share']:.2f}"
        rows.append((kind, str(len(kinds[kind])), *own, share, *other))
    header = ("kind", "pairs", "R", "S", "I12", "S / I12", "R less unrelated", "S less unrelated")
    return table(header, rows)


def prompts(n: int) -> dict[str, list[str]]:
    """Full captions, and the words of them that are tried: half of people, half of things."""
    rng, told = np.random.default_rng(0), world()

    def one(name: str) -> str:
        return str(rng.choice(told[name]))

    found: dict[str, list[str]] = {}
    while len(found) < n:
        style, ground = one("styles"), one("backgrounds")
        if len(found) % 2:
            words = [style, str(rng.choice(["red", "blue", "green", "yellow", "purple"])),
                     str(rng.choice(["heart", "circle"])), ground]  # fmt: skip
            text = "a {} emoji of a {} {} on a {} background"
        else:
            words = [style, one("genders"), one("professions"), str(rng.choice(told["skins"][1:])), ground]
            text = "a {} emoji of a {} {} with {} skin on a {} background"
        if len(set(words)) == len(words):  # a red heart on red names "red" twice
            found[text.format(*words)] = words
    return found


def unlike(images: Tensor, others: Tensor) -> Tensor:
    """One less the cosine of what the judge's classifier reads in two pictures."""
    judge = load_judge("emoji")
    return 1 - F.cosine_similarity(judge.features(images.float()), judge.features(others.float()))


def changes(folder: Path, sizes: Sizes) -> str:
    """How well each predictor orders the words of a prompt."""
    tried = prompts(sizes.prompts)
    how: dict[str, Any] = {"seeds": range(sizes.seeds), "steps": sizes.steps, "levels": sizes.levels}
    how |= {"words": tried, "distances": {"judge": unlike}, "store": folder / "bank"}
    found = kept(folder, "changes", WordChanges, lambda: word_changes(model(), list(tried), **how))
    plain, won = found.correlations(), found.correlations(less="position")
    rows = []
    for name in found.data["predictor"].values:
        cells = []
        for distance in ("latents", "judge"):
            for frame in (plain, won):
                own = frame[(frame["predictor"] == name) & (frame["distance"] == distance)]
                cells.append(bounds(own.iloc[0]) if len(own) else "")
        rows.append((str(name), *cells))
    header = ("predictor", "latents", "less position", "judge's features", "less position")
    told = f"{len(tried)} prompts, {sizes.seeds} seeds, {found.data.sizes['unit']} words."
    return f"{table(header, rows)}\n\n{told}"


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "findings")
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = options.output / f"words-{fingerprint(model())[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    sizes = FULL
    write(PAGE, "gender-bias", bias.gender(folder, sizes))
    write(PAGE, "skin-bias", bias.skin(folder, sizes))
    write(PAGE, "debiasing", bias.debias(folder, sizes))
    write(PAGE, "pairs", pairs(folder, sizes))
    write(PAGE, "changes", changes(folder, sizes))


if __name__ == "__main__":
    main()
