"""What directions of attributes do on ``emoji``: ``python benchmarks/directions.py``.

Skin tone, gender, style and colour: whether the judge's log odds follow the strength, and how far one unit
of it goes, beside prompt words, an edit of weights, a slider, and random directions of equal length; whether
the subject and the picture stay, and the other of two subjects; and what directions at one site detect and
steer, method by method. Writes the tables of docs/directions.md. Each evaluation is kept in --output under a
hash of the weights: a run that was stopped goes on. Some 40 minutes of one core.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from faster import bfloat16
from pages import bounds, output, table, write
from torch import Tensor

import denoscope
from denoscope import Direction
from denoscope.analysis import (
    Learned,
    Steering,
    evaluate_direction,
    random_like,
    score_direction,
    site_direction,
    token_direction,
)
from denoscope.analysis.metrics import Metric, Outcome, by_prompt, judge_log_odds, judge_probability
from denoscope.editing import Edit, SliderFit, slider, uce
from denoscope.models.judges import load_judge
from denoscope.models.store.disk import write_bytes
from denoscope.models.store.fingerprint import fingerprint

PAGE = "docs/directions.md"
JOBS = ("firefighter", "cook", "astronaut", "farmer", "pilot", "scientist", "judge", "mechanic")
HELD = ("singer", "teacher", "artist", "detective", "guard", "student")
THINGS = ("dog", "fox", "pizza", "rocket", "rose", "bus")
HELD_THINGS = ("cat", "banana", "penguin", "guitar", "butterfly", "carrot")
SITE = "unet/up.1.res.0/resid.post"
METHODS = ("mean", "pca", "probe", "jacobian")


@dataclass(frozen=True)
class Attribute:
    """One attribute of the judge's.

    Args:
        positive: text with it, of a subject.
        negative: text with its opposite.
        neutral: text that says neither; these are steered.
        attribute: which the judge knows.
        label: which value of it; of a subject.
        known: subjects that directions are found with.
        held: subjects that they are tried on.
    """

    positive: str
    negative: str
    neutral: str
    attribute: str
    label: str
    known: Sequence[str]
    held: Sequence[str]

    def texts(self, subjects: Sequence[str]) -> tuple[list[str], list[str]]:
        """Both texts of each subject."""
        return [self.positive.format(s) for s in subjects], [self.negative.format(s) for s in subjects]

    def plain(self, subjects: Sequence[str]) -> list[str]:
        """What is steered, of each subject."""
        return [self.neutral.format(s) for s in subjects]

    def metric(self, subjects: Sequence[str], *, odds: bool) -> Metric:
        """What the judge says of the attribute: log odds, or a probability."""
        kind, judge = judge_log_odds if odds else judge_probability, load_judge("emoji")
        pairs = zip(self.plain(subjects), subjects, strict=True)
        return by_prompt({t: kind(judge, self.attribute, self.label.format(s)) for t, s in pairs})

    def metrics(self, subjects: Sequence[str]) -> dict[str, Metric]:
        """The attribute twice, and what is to stay: how alike the picture is, and the subject, if known."""
        judge, pairs = load_judge("emoji"), list(zip(self.plain(subjects), subjects, strict=True))
        found = {"odds": self.metric(subjects, odds=True), "share": self.metric(subjects, odds=False)}
        found["alike"] = alike
        if set(subjects) <= set(judge.labels("concept")):
            seen = {t: judge_probability(judge, "concept", s) for t, s in pairs}
            found["subject"] = by_prompt(seen)
        return found


def alike(outcome: Outcome) -> Tensor:
    """CLIP cosine of each picture with the plain one."""
    assert outcome.clean is not None
    judge = load_judge("emoji")
    return judge.similarity(outcome.images, outcome.decode(outcome.clean)).diagonal()


PLAIN = "a noto emoji of a {}"
ATTRIBUTES: Mapping[str, Attribute] = {
    "dark skin": Attribute("a noto emoji of a dark skin {}", "a noto emoji of a light skin {}", PLAIN,
                           "skin", "dark", JOBS, HELD),
    "woman": Attribute("a noto emoji of a woman {}", "a noto emoji of a man {}", PLAIN,
                       "gender", "woman", JOBS, HELD),
    "flat style": Attribute("a flat emoji of a {}", PLAIN, PLAIN, "style", "flat", THINGS, HELD_THINGS),
    "blue": Attribute("a noto emoji of a blue {}", "a noto emoji of a red {}", PLAIN,
                      "concept", "blue {}", ("circle", "square"), ("heart",)),
}  # fmt: skip
OTHERS = ("dog", "pizza", "rocket", "red heart")
"""Second subjects, which stand on the right."""


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    held: int
    seeds: int
    steps: int
    strengths: tuple[float, ...]
    fit: int
    slider: SliderFit
    attributes: tuple[str, ...]

    @property
    def run(self) -> dict[str, object]:
        """Settings of the runs."""
        return {"seeds": list(range(100, 100 + self.seeds)), "steps": self.steps}


FULL = Sizes(6, 4, 12, (-1.0, -0.5, 0.5, 1.0), 120, SliderFit(), tuple(ATTRIBUTES))
BRIEF = SliderFit(rank=1, steps=2, seeds=[0], sampling_steps=2)
SMALL = Sizes(2, 1, 6, (1.0,), 4, BRIEF, ("woman", "dark skin"))


def directions(model: denoscope.Model, a: Attribute, sizes: Sizes, folder: Path) -> dict[str, Direction]:
    """The directions of an attribute, by name; each is kept."""
    positive, negative = a.texts(a.known)
    fit = Learned(steps=sizes.fit, draws=4, seeds=[0], sampling_steps=sizes.steps)
    text = {"model": model, "positive": positive, "negative": negative, "subject": list(a.known)}
    made = {
        "noun": lambda: token_direction(**text, rows=["subject"]),
        "noun, end, padding": lambda: token_direction(**text),
        "noun, learned": lambda: token_direction(**text, method=fit),
        "site": lambda: site_direction(model, SITE, positive, negative, seeds=[0, 1], steps=sizes.steps),
    }
    found = {}
    for name, make in made.items():
        path = folder / f"{a.label.strip(' {}')}-{name.replace(', ', '-')}.safetensors"
        if not path.exists():
            make().save(path)
        found[name] = Direction.load(path, model)
    return found


def evaluated(model: denoscope.Model, name: str, sizes: Sizes, folder: Path) -> dict[str, Steering]:
    """Every direction of an attribute, tried on subjects that it was not found with."""
    a = ATTRIBUTES[name]
    subjects = list(a.held)[: sizes.held]
    words, plain = a.texts(subjects)[0], a.plain(subjects)
    found = {}
    for way, direction in directions(model, a, sizes, folder).items():
        path = folder / f"{name}-{way}.zarr"
        if not path.exists():
            beside: dict[str, object] = {"words": words}
            if way == "noun":
                beside["edit"] = uce(model, requests(a, subjects))
                beside["slider"] = slid(model, name, sizes, folder)
            evaluate_direction(
                model,
                direction,
                plain,
                metrics=a.metrics(subjects),
                subject=subjects,
                strengths=sizes.strengths,
                beside=beside,  # type: ignore[arg-type]
                **sizes.run,  # type: ignore[arg-type]
            ).save(path)
        found[way] = Steering.load(path)
    return found


def slid(model: denoscope.Model, name: str, sizes: Sizes, folder: Path) -> Edit:
    """The slider of an attribute, which is kept; learned on the first four subjects."""
    path, a = folder / f"{name}-slider.safetensors", ATTRIBUTES[name]
    if not path.exists():
        some = list(a.known)[:4]
        slider(model, *a.texts(some), a.plain(some), settings=sizes.slider).save(path)
    return Edit.load(path)


def requests(a: Attribute, subjects: Sequence[str]) -> dict[str, str]:
    """What an edit makes of each subject's words: "cook" becomes "woman cook"."""
    texts = zip(a.texts(subjects)[0], a.plain(subjects), strict=True)
    short = [(p.removeprefix("a noto emoji of a "), n.removeprefix("a noto emoji of a ")) for p, n in texts]
    return {n: p for p, n in short}


def monotone(model: denoscope.Model, sizes: Sizes, folder: Path) -> str:
    """Whether the attribute follows the strength, and how far it goes."""
    rows = []
    for name in sizes.attributes:
        for way, found in evaluated(model, name, sizes, folder).items():
            told = found.monotone().set_index(["way", "metric"])
            shares = found.to_frame().query("metric == 'share'")
            at = {(r.way, r.strength): r._asdict() for r in shares.itertuples()}
            said = told.loc["direction", "odds"]
            rho = bounds(
                {"mean": said["spearman"], "low": said["spearman low"], "high": said["spearman high"]}
            )
            other = told.loc["random 0", "odds"]
            beside = shares[shares.strength.isna()].set_index("way")
            rows.append(
                (
                    name,
                    way,
                    rho,
                    f"{said['effect']:.2f}",
                    f"{other['effect']:.2f}",
                    bounds(at["direction", 0.0]),
                    bounds(at["direction", max(sizes.strengths)]),
                    *(
                        bounds(beside.loc[w]) if w in beside.index else ""
                        for w in ("words", "edit", "slider")
                    ),
                )
            )
    header = (
        "attribute",
        "rows",
        "Spearman",
        "logits a unit",
        "random",
        "share at 0",
        "at 1",
        "words",
        "edit",
        "slider",
    )
    return table(header, rows)


def kept(model: denoscope.Model, sizes: Sizes, folder: Path) -> str:
    """What each way changes beside the attribute: whether the subject is seen, how alike pictures are."""
    rows = []
    for name in sizes.attributes:
        for way, found in evaluated(model, name, sizes, folder).items():
            changes = found.changes(1.0).set_index(["way", "metric"])
            ways = ["direction", *(("words", "edit", "slider", "random 0") if way == "noun" else ())]
            for w in ways:
                cells = [
                    bounds(changes.loc[w, m]) if (w, m) in changes.index else ""
                    for m in ("odds", "subject", "alike")
                ]
                rows.append((name, way if w == "direction" else w, *cells))
    return table(("attribute", "way", "logits", "subject seen", "alike"), rows)


def side(which: str) -> Metric:
    """How far one half of the picture is from the plain one's, as a root mean square of latents."""

    def metric(outcome: Outcome) -> Tensor:
        assert outcome.clean is not None
        width = outcome.latents.shape[-1] // 2
        part = slice(0, width) if which == "left" else slice(width, None)
        moved = outcome.latents[..., part] - outcome.clean[..., part]
        return moved.square().flatten(1).mean(1).sqrt()

    metric.__name__ = f"change on the {which}"
    return metric


def subjects(model: denoscope.Model, sizes: Sizes, folder: Path) -> str:
    """Two subjects, of which the left one is steered: how much each half of the picture moves."""
    rows = []
    for name in [n for n in sizes.attributes if n in ("woman", "dark skin")]:
        a = ATTRIBUTES[name]
        pairs = list(zip(list(a.held)[: sizes.held], OTHERS * 2, strict=False))
        texts = {
            k: [t.format(s) + f" and a {o}" for s, o in pairs]
            for k, t in (("+", a.positive), ("-", a.neutral))
        }
        for way, direction in directions(model, a, sizes, folder).items():
            path = folder / f"{name}-{way}-two.zarr"
            if not path.exists():
                evaluate_direction(
                    model,
                    direction,
                    texts["-"],
                    metrics={s: side(s) for s in ("left", "right")},
                    subject=[s for s, _ in pairs],
                    strengths=[1.0],
                    beside={"words": texts["+"]},
                    **sizes.run,  # type: ignore[arg-type]
                ).save(path)
            moved = Steering.load(path).changes(1.0).set_index(["way", "metric"])
            cells = [bounds(moved.loc[w, s]) for w in ("direction", "words") for s in ("left", "right")]
            rows.append((name, way, *cells))
    header = ("attribute", "rows", "its own half", "the other half", "words: own", "words: other")
    return table(header, rows)


def detected(model: denoscope.Model, sizes: Sizes, folder: Path) -> str:
    """What directions of one site detect and steer, method by method."""
    rows = []
    for name in sizes.attributes:
        a = ATTRIBUTES[name]
        tested = list(a.held)[: sizes.held]
        positive, negative = a.texts(a.known)
        for way in (*METHODS, "random"):
            path = folder / f"{name}-{way}.json"
            if not path.exists():
                method = "mean" if way == "random" else way
                made = site_direction(
                    model, SITE, positive, negative, seeds=[0, 1], method=method, steps=sizes.steps
                )
                score = score_direction(
                    model,
                    random_like(made) if way == "random" else made,
                    a.texts(tested)[0],
                    a.plain(tested),
                    metric=a.metric(tested, odds=True),
                    **sizes.run,  # type: ignore[arg-type]
                )
                write_bytes(path, json.dumps(asdict(score)).encode())
            said = json.loads(path.read_text())
            cells = [
                bounds({"mean": said[k], "low": said[f"{k}_low"], "high": said[f"{k}_high"]})
                for k in ("auc", "effect")
            ]
            rows.append((name, way, *cells, f"{said['natural']:.2f}"))
    return table(("attribute", "method", "detects (AUC)", "steers (logits)", "words (logits)"), rows)


@bfloat16()
def main() -> None:
    """Measure and write."""
    where = output(__doc__)
    torch.set_num_threads(1)
    model = denoscope.load("emoji")
    folder = where / f"directions-{fingerprint(model)[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    write(PAGE, "monotone", monotone(model, FULL, folder))
    write(PAGE, "kept", kept(model, FULL, folder))
    write(PAGE, "subjects", subjects(model, FULL, folder))
    write(PAGE, "detected", detected(model, FULL, folder))


if __name__ == "__main__":
    main()
