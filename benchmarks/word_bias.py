"""Bias of words on ``emoji``, and debiasing by it; called by ``python benchmarks/word_experiments.py``.

Whether what words tell tracks the bias that a judge counts, in pictures that were not measured; and whether
debiasing the professions that the best measure picks brings more than as many at random.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import xarray as xr
from faster import bfloat16
from pages import bounds, table
from torch import Tensor

import denoscope
from denoscope.analysis import Counts, WordBias, count_labels, word_bias
from denoscope.analysis.intervals import interval
from denoscope.analysis.stored import Stored
from denoscope.editing import EditSettings, balance, uce
from denoscope.models import zoo
from denoscope.models.judges import load_judge
from denoscope.models.store.disk import write_bytes

CAPTION = "a noto emoji of a {}"
GENDERS = ("woman", "man")
SKINS = {tone: f"with {tone} skin" for tone in ("light", "medium", "dark")}
MEASURED, COUNTED, BALANCED, TRIED = 0, 100, 200, 300
"""First seeds: of the measures, of the counts that they are compared with, of debiasing, of trying it."""
EVEN = 0.4
"""The share of women, and of men, that debiasing asks for; the rest are persons."""
Result = TypeVar("Result", bound=Stored)


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    subjects: int
    measured: int
    counted: int
    tried: int
    rounds: int
    picks: int
    pairs: int
    prompts: int
    seeds: int
    steps: int
    levels: int


FULL = Sizes(subjects=20, measured=6, counted=20, tried=12, rounds=6, picks=5, pairs=8, prompts=24, seeds=4,
             steps=12, levels=12)  # fmt: skip
SMALL = Sizes(subjects=3, measured=2, counted=3, tried=2, rounds=2, picks=1, pairs=2, prompts=2, seeds=1,
              steps=4, levels=4)  # fmt: skip
DRAWS = 3
"""Picks at random."""


@cache
def model() -> denoscope.Model:
    """The embedded model."""
    return denoscope.load("emoji")


@cache
def world() -> dict[str, Any]:
    """Its words."""
    told: dict[str, Any] = json.loads((zoo.folder("emoji") / "world.json").read_text())
    return told


def kept(folder: Path, name: str, kind: type[Result], make: Callable[[], Result]) -> Result:
    """A result, from disk if it is there."""
    path = folder / f"{name}.zarr"
    if not path.exists():
        with bfloat16():
            made = make()
        made.save(path)
    return kind.load(path)


def says(*attributes: str) -> Callable[[Tensor], list[str | None]]:
    """What the judge says of pictures; of several attributes, all in one."""

    def label(images: Tensor) -> list[str | None]:
        judge, said = load_judge("emoji"), []
        for name in attributes:
            best = judge.probabilities(images.float(), name).argmax(1).tolist()
            said.append([judge.labels(name)[i] for i in best])
        return ["/".join(each) for each in zip(*said, strict=True)]

    return label


def subjects(sizes: Sizes) -> list[str]:
    """The professions."""
    return list(world()["professions"][: sizes.subjects])


def article(words: str) -> str:
    """The caption of one, as the model was trained: "an artist"."""
    return CAPTION.format(words).replace(" a a", " an a").replace(" a o", " an o")


def measured(folder: Path, sizes: Sizes, what: str) -> WordBias:
    """What words of gender, or of skin, tell."""
    how: dict[str, Any] = {"seeds": range(MEASURED, MEASURED + sizes.measured), "steps": sizes.steps,
                           "levels": sizes.levels, "store": folder / "bank"}  # fmt: skip
    if what == "skin":
        how |= {"template": CAPTION.format("{subject} {attribute}"), "pictures": ["neutral"]}
    else:
        how |= {"template": CAPTION.format("{attribute} {subject}")}
    words = SKINS if what == "skin" else list(GENDERS)
    return kept(folder, f"bias-{what}", WordBias, lambda: word_bias(model(), subjects(sizes), words, **how))


def counted(folder: Path, sizes: Sizes, what: str) -> Counts:
    """What the judge sees when neither is asked for."""
    prompts, names = {s: article(s) for s in subjects(sizes)}, list(SKINS if what == "skin" else GENDERS)
    seeds = range(COUNTED, COUNTED + sizes.counted)
    return kept(folder, f"counts-{what}", Counts, lambda: count_labels(
        model(), prompts, says(what), names, seeds=seeds, steps=sizes.steps))  # fmt: skip


def captioned(sizes: Sizes, what: str) -> dict[str, dict[str, float]]:
    """Shares in the training captions; of skin those of single words that are not rare."""
    told = zoo.data().captions
    if what == "gender":
        return {s: {g: told.genders[s].get(g, 0.0) for g in GENDERS} for s in subjects(sizes)}
    found = {s: {t: told.pairs.get((min(s, t), max(s, t)), np.nan) / told.words[s] for t in SKINS}
             for s in subjects(sizes) if s in told.words}  # fmt: skip
    return {s: shares for s, shares in found.items() if not np.isnan(list(shares.values())).any()}


def correlated(folder: Path, sizes: Sizes, what: str) -> pd.DataFrame:
    """Every measure against every share."""
    found, tables = measured(folder, sizes, what), []
    contrast = {"contrast": GENDERS} if what == "gender" else {}
    for name, shares in (("counted", counted(folder, sizes, what)), ("captions", captioned(sizes, what))):
        if not isinstance(shares, Counts) and len(shares) < 3:
            continue  # too few that are known, when little is tried
        tables.append(found.correlations(shares, **contrast).assign(share=name))
        if contrast:
            tables.append(found.correlations(shares).assign(share=name))
    return pd.concat(tables)


def bias(folder: Path, sizes: Sizes, what: str) -> str:
    """Rank correlations of measures with shares."""
    frame = correlated(folder, sizes, what).rename(columns={"rho": "mean"})
    columns = list(dict.fromkeys(zip(frame["share"], frame["attribute"], strict=True)))
    rows = []
    for (pictures, measure), some in frame.groupby(["pictures", "measure"], sort=False):
        by = {(r["share"], r["attribute"]): _rho(r) for _, r in some.iterrows()}
        rows.append((str(measure), str(pictures), *(by[c] for c in columns)))
    header = ("measure", "pictures", *(f"{attribute}, {share}" for share, attribute in columns))
    n = sorted(set(zip(frame["share"], frame["subjects"], strict=True)))
    seen = counted(folder, sizes, what).shown
    found = ", ".join(f"{a} in {int(seen.sel(attribute=a).sum())}" for a in seen["attribute"].values)
    known = f"Professions: {', '.join(f'{k} {share}' for share, k in n)}."
    told = f"Asked for none, the judge sees {found} of {seen.sizes['subject'] * seen.sizes['seed']} pictures."
    return f"{table(header, rows)}\n\n{known} {told}"


def _rho(row: pd.Series) -> str:
    """A correlation; there is none where all professions have the same share."""
    return "all alike" if np.isnan(row["mean"]) else bounds(row)


def gender(folder: Path, sizes: Sizes) -> str:
    """Women and men."""
    return bias(folder, sizes, "gender")


def skin(folder: Path, sizes: Sizes) -> str:
    """Tones."""
    return bias(folder, sizes, "skin")


def best_measure(folder: Path, sizes: Sizes) -> tuple[str, str, xr.DataArray]:
    """The measure that goes best with the counted bias, and how each profession leans by it."""
    frame = correlated(folder, sizes, "gender")
    frame = frame[(frame["share"] == "counted") & (frame["attribute"] == " - ".join(GENDERS))]
    best = frame.loc[frame["rho"].abs().idxmax()]
    lean = measured(folder, sizes, "gender").lean(*GENDERS).mean("seed")
    return best["measure"], best["pictures"], lean.sel(measure=best["measure"], pictures=best["pictures"])


def amounts(folder: Path, sizes: Sizes) -> dict[str, dict[str, float]]:
    """How much of each gender word makes each profession even, found by painting and counting."""
    path = folder / "amounts.json"
    if not path.exists():
        wanted = {s: dict.fromkeys(GENDERS, EVEN) for s in subjects(sizes)}
        with bfloat16():
            found = balance(model(), wanted, says("gender"), prompts=[CAPTION], rounds=sizes.rounds,
                            seeds=range(BALANCED, BALANCED + 8 if sizes is FULL else BALANCED + 2),
                            tolerance=0.15, settings=settings(), keep=KEPT, steps=sizes.steps)  # fmt: skip
        last = found.history.groupby(["concept", "attribute"])["amount"].last().unstack()
        write_bytes(path, last.T.to_json().encode())
    told: dict[str, dict[str, float]] = json.loads(path.read_text())
    return told


KEPT = ("", *(CAPTION.format(g) for g in (*GENDERS, "person")))


def settings() -> EditSettings:
    """Wordings that the model knows."""
    return replace(EditSettings(), templates=(CAPTION,))


def picks(folder: Path, sizes: Sizes) -> dict[str, list[str]]:
    """Which professions are debiased."""
    _, _, lean = best_measure(folder, sizes)
    each, k = subjects(sizes), sizes.picks
    rng = np.random.default_rng(0)
    chosen = {"none": [], "by the measure": [each[i] for i in np.argsort(-abs(lean.values))[:k]]}
    chosen |= {f"at random {i}": sorted(rng.permutation(each)[:k].tolist()) for i in range(DRAWS)}
    return {**chosen, "all": each}


def tried(folder: Path, sizes: Sizes) -> dict[str, Counts]:
    """What the judge sees after each choice, of the same seeds."""
    prompts, seeds = {s: article(s) for s in subjects(sizes)}, range(TRIED, TRIED + sizes.tried)
    shown = [f"{g}/{c}" for g in (*GENDERS, "person") for c in subjects(sizes)]
    found, much = {}, amounts(folder, sizes)
    for name, own in picks(folder, sizes).items():
        debias = {s: {g: a for g, a in much[s].items() if a} for s in own if any(much[s].values())}

        def count(debias: dict[str, dict[str, float]] = debias) -> Counts:
            how: dict[str, Any] = {"seeds": seeds, "steps": sizes.steps}
            if not debias:
                return count_labels(model(), prompts, says("gender", "concept"), shown, **how)
            edit = uce(model(), {}, debias=debias, keep=KEPT, settings=settings())
            with edit.applied(model()):
                return count_labels(model(), prompts, says("gender", "concept"), shown, **how)

        found[name] = kept(folder, f"tried-{name.replace(' ', '-')}", Counts, count)
    return found


def debias(folder: Path, sizes: Sizes) -> str:
    """What each choice of professions brings, over all of them."""
    signs = np.sign(counted(folder, sizes, "gender").lean(*GENDERS).mean("seed"))
    chosen, seen = picks(folder, sizes), tried(folder, sizes)
    leans = {name: signs * lean_of(c) for name, c in seen.items()}
    stays = {name: kept_of(c) for name, c in seen.items()}
    random = [n for n in seen if n.startswith("at random")]
    for told in (leans, stays):
        told["at random"] = xr.concat([told.pop(n) for n in random], "draw").mean("draw")
    over, rows = ["subject", "seed"], []
    for name in ("none", "by the measure", "at random", "all"):
        fall, gap = leans["none"] - leans[name], float(abs(leans[name].mean("seed")).mean())
        numbers = [("" if name == "none" else _said(interval(fall, over))), f"{gap:.2f}"]
        rows.append((name, *numbers, _said(interval(stays[name], over)), ", ".join(chosen.get(name, ()))
                     if name == "by the measure" else ""))  # fmt: skip
    won = interval(leans["at random"] - leans["by the measure"], over)
    measure, pictures, _ = best_measure(folder, sizes)
    header = ("debiased", "lean falls by", "mean size of the lean", "shows the profession", "which")
    return (
        f"{table(header, rows)}\n\nThe measure is {measure}, {pictures} pictures; {sizes.picks} of "
        f"{sizes.subjects} professions. By the measure more than at random: {_said(won)}."
    )


def lean_of(counts: Counts) -> xr.DataArray:
    """Women less men, whatever the concept [subject, seed]."""
    of = [str(a).split("/")[0] for a in counts.shown["attribute"].values]
    weights = [{GENDERS[0]: 1.0, GENDERS[1]: -1.0}.get(g, 0.0) for g in of]
    return (counts.shown * xr.DataArray(weights, dims="attribute")).sum("attribute")


def kept_of(counts: Counts) -> xr.DataArray:
    """Whether the profession that was asked for is seen [subject, seed]."""
    rows = []
    for s in counts.shown["subject"].values:
        own = [i for i, a in enumerate(counts.shown["attribute"].values) if str(a).split("/")[1] == s]
        rows.append(counts.shown.sel(subject=s).isel(attribute=own).sum("attribute"))
    return xr.concat(rows, "subject").drop_vars("prompt", errors="ignore")


def _said(found: xr.Dataset) -> str:
    return bounds({k: float(found[k]) for k in ("mean", "low", "high")})
