"""What the embedded models know of pictures: ``python benchmarks/classification.py``.

Zero-shot accuracy of classification by denoising on real pictures that nothing was trained on, on composed
scenes, and on pictures that the model paints itself, beside the CLIP judge with the same texts; shared
against independent noise; rows that pruning spares; learned weights of levels; and compositions. Writes the
tables of docs/classification.md. Answers are kept in --output under a hash of the weights, one by one, and
task by task in benchmarks/found: a run that was stopped goes on. Some four hours of one core.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
import xarray as xr
from measure import Row
from pages import ROOT, bounds, output, table, write
from shelf import shelved_json
from torch import Tensor

import denoscope
from denoscope.analysis import classify, learn_weights, self_bench
from denoscope.analysis.intervals import proportion
from denoscope.models import zoo
from denoscope.models.judges import load_judge
from denoscope.models.store.disk import write_bytes
from denoscope.models.store.fingerprint import fingerprint

PAGE = "docs/classification.md"
MODELS = ("emoji", "emoji-dit")
COUNTS = ("two", "three", "four")
DRAWS = 8
"""Of pruning, and of what it is compared with."""
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "plain": {},
    "nats": {"weights": "nats"},
    "apart": {"shared": False},
    "full": {"draws": DRAWS},
    "pruned": {"draws": DRAWS, "prune": 0.01},
}
COMPOSITIONS: Mapping[str, Sequence[str]] = {
    "order": ["a noto emoji of a dog and a red heart", "a noto emoji of a red heart and a dog"],
    "order of persons": [
        "a noto emoji of a cook and a firefighter",
        "a noto emoji of a firefighter and a cook",
    ],
    "count": [f"a noto emoji of {n} dogs" for n in COUNTS],
    "ground": [f"a noto emoji of a dog on a {c} background" for c in ("red", "blue", "green")],
    "binding": [
        "a noto emoji of a red heart and a blue circle",
        "a noto emoji of a blue heart and a red circle",
    ],
}


@dataclass(frozen=True)
class Question:
    """A real picture, the text that it shows, and what that is to be told from (itself included)."""

    picture: Tensor
    own: str
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Sizes:
    """How many pictures of each task, and seeds of each composition."""

    pictures: int
    learned: int
    seeds: int
    models: tuple[str, ...] = MODELS


SIZES = Sizes(pictures=40, learned=60, seeds=12)


@cache
def opened(name: str) -> denoscope.Model:
    """One of the embedded models."""
    return denoscope.load(name)


@cache
def world() -> dict[str, Any]:
    """What the models were trained on."""
    told: dict[str, Any] = json.loads((zoo.folder("emoji") / "world.json").read_text())
    return told


def article(words: str) -> str:
    """With "a" or "an"."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def replaced(pattern: str, values: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    """What else a caption could say in the one place that a pattern finds; empty if it is not there."""

    def others(caption: str) -> tuple[str, ...]:
        if len(re.findall(pattern, caption)) != 1:
            return ()
        return tuple(re.sub(pattern, value, caption) for value in values)

    return others


def swapped(caption: str) -> tuple[str, ...]:
    """Both orders of two subjects."""
    head, both = caption.split(" of ", 1)
    first, second = both.split(" and ", 1)
    return (caption, f"{head} of {second} and {first}")


def named(label: zoo.evaluation_data.Label, template: str) -> tuple[str, tuple[str, ...]]:
    """The text of a label's concept, and of all common ones."""
    return template.format(article(label.concept)), tuple(
        template.format(article(c)) for c in world()["common"]
    )


@cache
def questions(task: str) -> tuple[Question, ...]:
    """All questions of a task that the real pictures or scenes allow."""
    styles, skins = ("|".join(sorted(world()[k], key=len, reverse=True)) for k in ("styles", "skins"))
    ways = {
        "style": replaced(rf"^a ({styles}) emoji", [f"a {s} emoji" for s in world()["styles"]]),
        "gender": replaced(r"\b(man|woman)\b", ["man", "woman"]),
        "skin tone": replaced(rf"\b({skins}) skin", [f"{s} skin" for s in world()["skins"]]),
        "colour of ground": replaced(
            r"an? \w+ background", [f"{article(c)} background" for c in world()["backgrounds"]]
        ),
        "count": replaced(rf"\b({'|'.join(COUNTS)})\b", COUNTS),
        "left and right": swapped,
    }
    kinds = {"colour of ground": "ground", "count": "count", "left and right": "pair"}
    if task in kinds:
        scenes = [s for s in zoo.data().scenes if s.kind == kinds[task]]
        shown = [(s.picture, s.caption, ways[task](s.caption)) for s in scenes]
    else:
        real = zoo.data().real
        pairs = [
            (x, label)
            for x, label in zip(real.pictures, real.labels, strict=True)
            if label.unseen == "combination"
        ]
        if task == "concept":
            pairs = [(x, label) for x, label in pairs if label.concept in world()["common"]]
            shown = [(x, *named(label, f"a {label.style} emoji of {{}}")) for x, label in pairs]
        else:
            shown = [(x, label.caption, ways[task](label.caption)) for x, label in pairs]
    found = [Question(x, own, texts) for x, own, texts in shown if own in texts]
    if not found:
        raise SystemExit(f"no picture asks for {task}; look at the captions of zoo.data()")
    return tuple(found)


def some(n: int, of: int) -> list[int]:
    """So many places, evenly spread: neighbours show the same."""
    return sorted({round(i * (of - 1) / max(1, n - 1)) for i in range(min(n, of))})


class Answers:
    """What a model and the judge answered: one by one in --output, task by task with the page."""

    def __init__(self, name: str, output: Path) -> None:
        self.name, self.weights = name, fingerprint(opened(name))
        self.folder = output / f"classification-{self.weights[:12]}"
        self.folder.mkdir(parents=True, exist_ok=True)

    def kept(self, key: str, make: Callable[[], Any]) -> Any:
        """Something small, kept with the page."""
        return shelved_json("classification", self.weights, key.replace(" ", "-"), make)

    def task(self, task: str, source: str, setting: str, n: int) -> list[dict[str, Any]]:
        """Answers to some questions of a task, on the real pictures or the model's own."""
        asked, key = questions(task), f"{task}-{source}-{setting}"

        def made() -> list[dict[str, Any]]:
            return [self._one(key, asked[i], source, setting, i) for i in some(n, len(asked))]

        found: list[dict[str, Any]] = self.kept(f"{key}-{n}", made)
        return found

    def _one(self, key: str, question: Question, source: str, setting: str, i: int) -> dict[str, Any]:
        path = self.folder / f"{key.replace(' ', '-')}-{i}.json"
        if not path.exists():
            write_bytes(path, json.dumps(self._answer(question, source, setting, i)).encode())
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    def _answer(self, question: Question, source: str, setting: str, i: int) -> dict[str, Any]:
        model, texts = opened(self.name), list(question.texts)
        shown: Any = question.picture[None]
        if source == "own":
            shown = denoscope.trace(model, [question.own], seeds=[i], steps=world()["steps"])
        found = classify(model, shown, texts, seed=i, **SETTINGS[setting])
        images = shown if source == "real" else shown.images
        with torch.no_grad():
            fits = load_judge("emoji").similarity(images, texts)[0]
        return {
            "right": found.chosen[0] == question.own,
            "chosen": found.chosen[0],
            "judge": texts[int(fits.argmax())] == question.own,
            "rows": found.rows,
            "full_rows": found.full_rows,
        }


def share(answers: Sequence[Mapping[str, Any]], by: str = "right") -> str:
    """The share of right answers, with its interval."""
    values = xr.DataArray([float(a[by]) for a in answers], dims="picture")
    return bounds({k: float(v) for k, v in proportion(values, ["picture"]).items()})


TASKS = ("style", "concept", "gender", "skin tone", "colour of ground", "count", "left and right")


def accuracy(output: Path, sizes: Sizes) -> str:
    """How often each model is right, and the judge on the same pictures."""
    rows = []
    for task in TASKS:
        for source in ("real", "own"):
            for name in sizes.models:
                found = Answers(name, output).task(task, source, "plain", sizes.pictures)
                chance = f"1 of {len(questions(task)[0].texts)}"
                told = (share(found), share(found, "judge"), str(len(found)))
                rows.append((f"{task}, {chance}", source, f"`{name}`", *told))
    return table(("task", "pictures", "model", "denoiser", "judge", "number"), rows)


def noise(output: Path, sizes: Sizes) -> str:
    """Shared against independent noise, of 12 rows a prompt."""
    rows = []
    for task in ("concept", "skin tone", "gender", "left and right"):
        answers = Answers("emoji", output)
        told = [share(answers.task(task, "real", s, sizes.pictures)) for s in ("plain", "apart")]
        rows.append((task, *told, share(answers.task(task, "real", "nats", sizes.pictures))))
    return table(("real pictures, `emoji`", "shared noise", "independent noise", "shared, in nats"), rows)


@dataclass(frozen=True)
class Pruning:
    """Answers to the same questions, from all rows and from those that pruning leaves."""

    full: list[dict[str, Any]]
    pruned: list[dict[str, Any]]

    @property
    def same(self) -> int:
        """How many answers are the same."""
        return sum(a["chosen"] == b["chosen"] for a, b in zip(self.full, self.pruned, strict=True))

    @property
    def spent(self) -> float:
        """Rows that were computed, as a share of all."""
        pruned, full = (sum(a["rows"] for a in found) for found in (self.pruned, self.full))
        return float(pruned / full)


def prunings(output: Path, sizes: Sizes, tasks: Sequence[str]) -> dict[str, Pruning]:
    """Half of the pictures of each task, with and without pruning."""
    answers, n = Answers("emoji", output), max(1, sizes.pictures // 2)
    return {t: Pruning(*(answers.task(t, "real", s, n) for s in ("full", "pruned"))) for t in tasks}


def pruning(output: Path, sizes: Sizes) -> str:
    """What pruning spares, and whether it changes answers."""
    found = prunings(output, sizes, ("concept", "style", "skin tone", "gender"))
    rows = [
        (task, share(p.full), share(p.pruned), f"{p.same} of {len(p.full)}", f"{1 - p.spent:.0%}")
        for task, p in found.items()
    ]
    header = (f"real pictures, {DRAWS} draws, 1 %", "all rows", "pruned", "same answers", "rows spared")
    return table(header, rows)


def weights(output: Path, sizes: Sizes) -> str:
    """Learned weights of levels, on pictures that they do not know, near to and far from the training's."""
    rows = []
    for name in sizes.models:
        for unseen in ("combination", "style"):
            key = f"weights-{unseen}-{sizes.learned}"
            answers = Answers(name, output)
            found = answers.kept(key, partial(_learned, name, unseen, sizes.learned, answers.folder / "bank"))
            told = [share([{"right": r} for r in found[k]]) for k in ("nats", "v", "learned")]
            rows.append((f"`{name}`", f"unseen {unseen}", str(len(found["v"])), *told))
    return table(("model", "pictures", "tested", "nats", "v", "learned"), rows)


def _learned(name: str, unseen: str, n: int, store: Path) -> dict[str, list[float]]:
    real, common = zoo.data().real, world()["common"]
    every = [i for i, t in enumerate(real.labels) if t.unseen == unseen and t.concept in common]
    at = [every[i] for i in some(n, len(every))]
    texts = [f"an emoji of {article(c)}" for c in common]
    labels = [f"an emoji of {article(real.labels[i].concept)}" for i in at]
    known, tested = slice(0, None, 2), slice(1, None, 2)
    model, pictures = opened(name), real.pictures[at]
    folds = min(5, len(labels[known]))
    learned = learn_weights(model, pictures[known], texts, labels[known], folds=folds, store=store)
    given: Mapping[str, Any] = {"nats": "nats", "v": "v", "learned": learned}
    found = {k: classify(model, pictures[tested], texts, weights=w, store=store) for k, w in given.items()}
    return {k: f.right(labels[tested]).values.tolist() for k, f in found.items()}


def compositions(output: Path, sizes: Sizes) -> str:
    """Whether each model tells its own compositions apart."""
    rows = []
    for name in sizes.models:
        for task, texts in COMPOSITIONS.items():
            how = {"seeds": range(sizes.seeds), "judge": load_judge("emoji")}
            made = partial(_composed, name, {task: texts}, how)
            found = Answers(name, output).kept(f"own-{task}-{sizes.seeds}", made)
            told = [bounds({**r, "mean": r["accuracy"]}) if r["n"] else "none" for r in found]
            rows.append((f"`{name}`", f"{task}, 1 of {len(texts)}", *told, str(found[2]["n"])))
    return table(("model", "task", "denoiser", "judge", "denoiser, as asked", "as asked"), rows)


def _composed(name: str, tasks: Mapping[str, Sequence[str]], how: Mapping[str, Any]) -> Any:
    return self_bench(opened(name), tasks, **how).to_dict("records")


def measure() -> list[Row]:
    """Rows of classification with pruning, of all rows, on the pictures of docs/classification.md.

    They are read where ``main`` kept them; without that some minutes.
    """
    found = prunings(ROOT / "build" / "findings", SIZES, ("style", "skin tone"))
    rows = []
    for task, p in found.items():
        right = [sum(a["right"] for a in some) for some in (p.pruned, p.full)]
        n = len(p.full)
        note = f"{right[0]} of {n} right against {right[1]}; {p.same} of {n} answers the same"
        what = f"classifying by {task}, {DRAWS} draws, pruned at 1 %: network rows"
        rows.append(Row(what, "all draws of all prompts", p.spent, note=note))
    return rows


def main() -> None:
    """Measure and write."""
    where = output(__doc__)
    torch.set_num_threads(1)
    write(PAGE, "accuracy", accuracy(where, SIZES))
    write(PAGE, "noise", noise(where, SIZES))
    write(PAGE, "pruning", pruning(where, SIZES))
    write(PAGE, "weights", weights(where, SIZES))
    write(PAGE, "compositions", compositions(where, SIZES))


if __name__ == "__main__":
    main()
