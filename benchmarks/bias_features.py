"""Features that a bias hangs on, and what taking it out costs: ``python benchmarks/bias_features.py``.

Gender and skin in ``emoji-people``, which reads no text; women and men among the professions of ``emoji``.
What features tell and what they move, and pushes by features beside features as active, plain class contrast,
means of activations and of outputs, another start, other words and an edit of weights, plain and by the
asymmetric step. Writes the tables of docs/bias-features.md. Dictionaries and what their features tell are
kept in --output under a hash of the weights, what came of pushes in benchmarks/found: a run that was stopped
goes on. Some four hours of one core.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from faster import bfloat16
from pages import bounds, output, table, write
from shelf import Result, shelved
from word_bias import kept, says

import denoscope
from denoscope.analysis import (
    BiasFeatures,
    FeatureScores,
    Mitigation,
    bias_features,
    bias_score,
    calibrated_strength,
    compare_mitigations,
    fairness_discrepancy,
    score_features,
    stratified,
)
from denoscope.analysis.metrics import judge_log_odds
from denoscope.editing import EditSettings, uce
from denoscope.guidance import Asymmetric
from denoscope.models.judges import load_judge
from denoscope.models.run.state import SamplerState
from denoscope.models.store.fingerprint import fingerprint
from denoscope.probes import Dictionary, Learning, train_dictionary

PAGE = "docs/bias-features.md"
SITES = {"middle": "unet/mid.res.1/resid.post", "upper": "unet/up.1.attn.1/resid.post"}
WORDS_SITE = "unet/up.1.attn.1.0/cross_attn.out"
EARLY = 0.3
"""The share of the steps, from the first on, in which an asymmetric push acts."""
FIRST = {"dictionary": 0, "known": 1000, "calibrated": 2000, "tried": 3000, "scored": 4000}
"""First seeds."""


@dataclass(frozen=True)
class Attribute:
    """What is told apart.

    Args:
        name: that of the judge.
        classes: label of the class that is pushed to, and of the other.
        of: the judge's labels that make each class.
        goal: the share that the first class is to have.
        plain: label that the judge's log odds are taken of.
    """

    name: str
    classes: tuple[str, str]
    of: Mapping[str, Sequence[str]]
    goal: float
    plain: str

    def label(self, images: torch.Tensor) -> list[str | None]:
        """The class of each picture."""
        known = {label: c for c, labels in self.of.items() for label in labels}
        return [known.get(str(said)) for said in says(self.name)(images)]

    @property
    def target(self) -> dict[str, float]:
        """Both shares."""
        return dict(zip(self.classes, (self.goal, 1 - self.goal), strict=True))


ATTRIBUTES = {
    "gender": Attribute("gender", ("woman", "man"), {"woman": ["woman"], "man": ["man"]}, 0.5, "woman"),
    "skin": Attribute(
        "skin",
        ("dark", "light"),
        {"dark": ["medium-dark", "dark"], "light": ["yellow", "light", "medium-light", "medium"]},
        0.5,
        "dark",
    ),
}


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    dictionary: int
    updates: int
    known: int
    tried: int
    features: int
    scored: int
    moved: int
    rounds: int
    professions: int
    each: int
    steps: int
    sites: tuple[str, ...]
    attributes: tuple[str, ...]


FULL = Sizes(dictionary=256, updates=4000, known=256, tried=128, features=30, scored=6, moved=32, rounds=5,
             professions=10, each=12, steps=20, sites=("middle", "upper"),
             attributes=("gender", "skin"))  # fmt: skip
SMALL = Sizes(dictionary=4, updates=4, known=24, tried=4, features=4, scored=1, moved=2, rounds=1,
              professions=2, each=2, steps=3, sites=("middle",), attributes=("gender",))  # fmt: skip


@cache
def opened(name: str) -> denoscope.Model:
    """A model."""
    return denoscope.load(name)


def seeds(what: str, n: int) -> range:
    """So many seeds, apart from those of anything else."""
    return range(FIRST[what], FIRST[what] + n)


def shelf(sizes: Sizes, name: str, kind: type[Result], make: Callable[[], Result]) -> Result:
    """A small result, kept with the page."""
    weights = [fingerprint(opened(m)) for m in ("emoji-people", "emoji")]
    return shelved("bias", [weights, asdict(sizes)], name, kind, make)


def fits(where: Path) -> Path:
    """The folder of dictionaries and of what their features tell, for these weights."""
    folder = where / f"bias-{fingerprint(opened('emoji-people'))[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def dictionary(folder: Path, site: str, sizes: Sizes) -> Dictionary:
    """The dictionary of a site of the people."""
    return train_dictionary(
        opened("emoji-people"),
        SITES[site],
        seeds=seeds("dictionary", sizes.dictionary),
        steps=sizes.steps,
        store=folder / site,
        learning=Learning(updates=sizes.updates, rows=512),
    )


def asked(folder: Path, site: str, name: str, sizes: Sizes) -> BiasFeatures:
    """What features tell of an attribute."""
    a, d = ATTRIBUTES[name], dictionary(folder, site, sizes)
    return kept(folder, f"{site}-{name}", BiasFeatures, lambda: bias_features(
        opened("emoji-people"), d, a.classes, label=a.label, seeds=seeds("known", sizes.known),
        steps=sizes.steps))  # fmt: skip


@cache
def output_gaps() -> Mapping[str, torch.Tensor]:
    """Attribute -> mean output of the network in samples of its first class less in others [step, ...]."""
    import bias_sites  # noqa: PLC0415  # which imports this

    (site,) = opened("emoji-people").sites("unet/out/*")

    return {name: gaps[site] for name, gaps in bias_sites.means("emoji-people", [site]).items()}


def of_outputs(name: str, strength: float = 1.0, branch: str = "cond") -> denoscope.Intervention:
    """What adds the mean difference of the network's outputs, step by step: no site inside is special."""
    (site,), gap = opened("emoji-people").sites("unet/out/*"), strength * output_gaps()[name]
    when = denoscope.When(branch=branch)
    return denoscope.Intervention(site, lambda x, context: x + gap[context.index].to(x), when)


def from_mean(n: int, steps: int) -> SamplerState:
    """The samples' start from the mean picture of real people, one step in and under noise."""
    import invariant  # noqa: PLC0415  # which imports this

    mean = invariant.people()[0].mean(0).expand(n, -1, -1, -1)
    return opened("emoji-people").start_at(mean, 1, seeds("tried", n), steps=steps)


def told(folder: Path, sizes: Sizes) -> str:
    """What the classifiers tell, step by step."""
    rows = []
    for site in sizes.sites:
        for name, a in ((n, ATTRIBUTES[n]) for n in sizes.attributes):
            found = asked(folder, site, name, sizes)
            frame = found.accuracy().set_index("step")
            at = [int(frame.index[round(i * (len(frame) - 1))]) for i in (0, 0.25, 0.5, 1)]
            labels = [str(x) for x in found.data["label"].values]
            fair = fairness_discrepancy(labels, a.target)
            rows.append((
                f"`{SITES[site]}`", name, f"{fair.shares[a.classes[0]]:.2f}",
                *(bounds(frame.loc[i]) for i in at), f"{frame['shuffled'].mean():.2f}",
                f"{found.to_frame().groupby('class')['auc'].max().max():.2f}",
            ))  # fmt: skip
    steps = [f"step {i}" for i in at]
    return table(("site", "attribute", "share of the first class", *steps, "shuffled", "best AUC"), rows)


def scored(folder: Path, sizes: Sizes) -> str:
    """What single features tell, and what they move."""
    rows = []
    for site in sizes.sites:
        for name, a in ((n, ATTRIBUTES[n]) for n in sizes.attributes):
            found, d = asked(folder, site, name, sizes), dictionary(folder, site, sizes)
            metric = judge_log_odds(load_judge("emoji"), a.name, a.plain)
            made = shelf(sizes, f"{site}-{name}-scores", FeatureScores, lambda: score_features(
                opened("emoji-people"), d, found, a.classes[0], seeds=seeds("scored", sizes.moved),  # noqa: B023
                metric=metric, features=sizes.scored, steps=sizes.steps))  # fmt: skip  # noqa: B023
            for r in made.to_frame().to_dict("records"):
                cells = [
                    bounds({"mean": r[k], "low": r[f"{k}_low"], "high": r[f"{k}_high"]})
                    for k in ("tells", "moves")
                ]
                rows.append((f"`{SITES[site]}`", a.classes[0], str(r["feature"]),
                             "by its score" if r["chosen"] else "as active", *cells))  # fmt: skip
    return table(("site", "class", "feature", "chosen", "tells (AUC)", "moves (logits)"), rows)


def ways(folder: Path, site: str, name: str, sizes: Sizes, branch: str) -> dict[str, Any]:
    """What acts on each sample."""
    a, n = ATTRIBUTES[name], sizes.tried
    found, d = asked(folder, site, name, sizes), dictionary(folder, site, sizes)
    how: dict[str, Any] = {"features": sizes.features, "branch": branch}
    first = a.classes[0]
    every = {
        by: [(found.towards(d, first, 1.0, by=by, **how),)] * n
        for by in ("attribution", "contrast", "matched")
    }
    exact = [(found.towards(d, c, 1.0, **how),) for c in stratified(a.target, n)]
    made: dict[str, Any] = {**every, "each to its class": exact}
    made["mean difference"] = [(found.mean_difference(first, branch=branch),)] * n
    made["mean difference of outputs"] = [(of_outputs(name, branch=branch),)] * n
    if branch == "cond":
        made["start from the mean picture"] = from_mean(n, sizes.steps)
        made |= calibrated(found, d, a, sizes)
    return made


def calibrated(found: BiasFeatures, d: Dictionary, a: Attribute, sizes: Sizes) -> dict[str, Any]:
    """The push by attribution whose strength gives the share; nothing where no strength does."""

    def push(strength: float, n: int = sizes.tried) -> list[Any]:
        toward = a.classes[0] if strength >= 0 else a.classes[1]
        return [(found.towards(d, toward, abs(strength), features=sizes.features),)] * n

    for sign in (1, -1):
        try:
            got = calibrated_strength(
                opened("emoji-people"), lambda s, sign=sign: push(sign * s), a.label,
                (a.classes[0], a.goal), seeds=seeds("calibrated", sizes.tried), most=3.0,
                rounds=sizes.rounds, steps=sizes.steps,
            )  # fmt: skip
        except ValueError:
            continue
        return {f"attribution, strength {sign * got.strength:.2f}": push(sign * got.strength)}
    return {}


def compared(folder: Path, sizes: Sizes) -> str:
    """What each way reaches, and what it costs."""
    rows = []
    for site in sizes.sites:
        for name, a in ((n, ATTRIBUTES[n]) for n in sizes.attributes):
            for kind, guidance in (("plain", None), ("asymmetric", Asymmetric(steps=range(early(sizes))))):
                branch = "cond" if guidance is None else "edited"
                made = shelf(sizes, f"{site}-{name}-{kind}", Mitigation, lambda: compare_mitigations(
                    opened("emoji-people"), cut(ways(folder, site, name, sizes, branch), guidance),  # noqa: B023
                    seeds=seeds("tried", sizes.tried), label=a.label, target=a.target,  # noqa: B023
                    judge=load_judge("emoji"), steps=sizes.steps, guidance=guidance))  # fmt: skip  # noqa: B023
                rows += lines(made, (f"`{SITES[site]}`", name, kind), a.classes[0])
    header = ("site", "attribute", "step", "way", "share", "discrepancy", "chance", "kept", "moved",
              "kernel distance", "rows")  # fmt: skip
    return table(header, rows)


def early(sizes: Sizes) -> int:
    """In how many steps an asymmetric push acts."""
    return max(1, round(EARLY * sizes.steps))


def cut(made: Mapping[str, Any], guidance: Asymmetric | None) -> dict[str, Any]:
    """Ways that act in the guidance's steps alone."""
    if guidance is None:
        return dict(made)
    steps = guidance.steps
    return {
        name: [tuple(replace(i, when=replace(i.when, steps=steps)) for i in one) for one in way]
        for name, way in made.items()
    }


def lines(made: Mitigation, first: Sequence[str], name: str) -> list[tuple[str, ...]]:
    """The rows of one comparison."""
    shares = made.shares().set_index(["way", "class"])
    rows = []
    for r in made.to_frame().to_dict("records"):
        cells = [bounds({"mean": r[k], "low": r[f"{k}_low"], "high": r[f"{k}_high"]}, digits)
                 if k in r and r[k] == r[k] else "" for k, digits in
                 (("discrepancy", 2), ("kept", 2), ("moved", 2), ("quality", 3))]  # fmt: skip
        chance = f"{r['chance']:.2f}" if r.get("chance") == r.get("chance") and "chance" in r else ""
        share = bounds(shares.loc[(r["way"], name)])
        rows.append((*first, r["way"], share, cells[0], chance, *cells[1:], f"{r['rows']:.0f}"))
    return rows


def professions(folder: Path, sizes: Sizes) -> str:
    """Women and men among the professions of the model that reads text."""
    import word_bias  # noqa: PLC0415

    model, a = opened("emoji"), ATTRIBUTES["gender"]
    jobs = word_bias.subjects(word_bias.FULL)[: sizes.professions]
    texts = {c: [word_bias.article(f"{c} {j}") for j in jobs] for c in a.classes}
    run = {"seeds": seeds("known", len(jobs)), "steps": sizes.steps}
    d = train_dictionary(
        model, WORDS_SITE, [t for some in texts.values() for t in some],
        seeds=seeds("dictionary", 2 * len(jobs)), steps=sizes.steps, store=folder / "professions",
        learning=Learning(updates=sizes.updates, rows=512),
    )  # fmt: skip
    found = kept(folder, "professions", BiasFeatures, lambda: bias_features(model, d, texts, **run))
    plain = [word_bias.article(j) for j in jobs for _ in range(sizes.each)]
    wanted = [c for j in range(len(jobs)) for c in stratified(a.target, sizes.each, seed=j)]
    each = [j for j in jobs for _ in range(sizes.each)]
    how = {"features": sizes.features}
    edit = uce(model, {j: f"woman {j}" for j in jobs}, settings=EditSettings(templates=("a {}",)))
    made = shelf(sizes, "professions-ways", Mitigation, lambda: compare_mitigations(
        model,
        {
            "each to its class": [(found.towards(d, c, 1.0, **how),) for c in wanted],
            "as active": [(found.towards(d, c, 1.0, by="matched", **how),) for c in wanted],
            "mean difference": [(found.mean_difference(c),) for c in wanted],
            "other words": [word_bias.article(f"{c} {j}") for c, j in zip(wanted, each, strict=True)],
            "half of an edit to women": 0.5 * edit,
        },
        plain, seeds=seeds("tried", len(plain)), label=a.label, target=a.target, judge=load_judge("emoji"),
        steps=sizes.steps,
    ))  # fmt: skip
    rows = []
    for row in lines(made, (), a.classes[0]):
        said = [str(x) for x in made.data["label"].sel(way=row[0]).values]
        by_job = {j: [x for x, e in zip(said, each, strict=True) if e == j and x in a.classes] for j in jobs}
        seen = {j: some for j, some in by_job.items() if some}
        score = bias_score(seen, list(a.classes)) if seen else None
        told = bounds({"mean": score.value, "low": score.low, "high": score.high}) if score else ""
        rows.append((row[0], told, f"{score.chance:.2f}" if score else "", *row[1:3], *row[4:]))
    header = (
        "way",
        "bias score",
        "chance",
        "share",
        "discrepancy",
        "kept",
        "moved",
        "kernel distance",
        "rows",
    )
    return table(header, rows)


@bfloat16()
def main() -> None:
    """Measure and write."""
    folder = fits(output(__doc__))
    torch.set_num_threads(1)
    write(PAGE, "told", told(folder, FULL))
    write(PAGE, "features", scored(folder, FULL))
    write(PAGE, "ways", compared(folder, FULL))
    write(PAGE, "professions", professions(folder, FULL))


if __name__ == "__main__":
    main()
