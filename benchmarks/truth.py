"""Which method finds what was planted? Every method of localisation on places whose truth is known.

    python benchmarks/truth.py              all places: an hour of one core that has bfloat16, three without

What was stopped goes on: what each place and method gave is kept in --output, a table for each hash of the
weights, with which another machine goes on. The summary is written into docs/planted.md, between
``<!-- planted-truth -->`` and ``<!-- /planted-truth -->``.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from faster import bfloat16
from pages import ROOT, bounds, table, write

import denoscope
from denoscope.analysis import (
    Noise,
    Scores,
    attribution_patching,
    compare,
    decided,
    head_ablation,
    locogen,
    path_effect,
    race,
    trace_denoiser,
    trace_text,
)
from denoscope.analysis.intervals import interval, proportion
from denoscope.analysis.mediation.choice import window_name
from denoscope.analysis.mediation.corruption import Swap
from denoscope.analysis.metrics import Metric, judge_probability
from denoscope.editing import planted
from denoscope.editing.planting.making import thirds
from denoscope.editing.planting.places import GUIDANCE, STEPS, Planted, Question
from denoscope.editing.planting.readings import layers
from denoscope.models.judges import load_judge
from denoscope.models.run.context import When
from denoscope.models.store.disk import write_bytes
from denoscope.models.store.fingerprint import fingerprint

PAGE = "docs/planted.md"
SEEDS = (0, 1)
Place = tuple[str, ...]
"""A candidate: a site, and perhaps a token or a window of steps."""


@dataclass(frozen=True)
class Asked:
    """One question to one method.

    Args:
        model: the model, with the plant in it.
        question: what is asked.
        metric: the probability of the question's label.
        seeds: of the runs.
        place: the plant.
    """

    model: denoscope.Model
    question: Question
    metric: Metric
    seeds: Sequence[int]
    place: Planted

    @property
    def first(self) -> tuple[Any, list[str], str]:
        """Model, prompt and subject, as methods take them."""
        return self.model, [self.question.prompt], self.question.subject

    @property
    def settings(self) -> dict[str, Any]:
        """How runs are made."""
        return {"seeds": self.seeds, "metric": self.metric, "steps": STEPS, "guidance": GUIDANCE}

    @property
    def swapped(self) -> dict[str, Any]:
        """The same, with the subject swapped."""
        return {**self.settings, "corruption": Swap(self.question.swap)}

    def windows(self) -> list[range]:
        """The windows of steps that are told apart."""
        return [range(*cut) for cut in thirds(STEPS)]


Found = tuple[dict[Place, float], int]
"""Scores of all candidates, and the network rows that they cost."""
Method = Callable[[Asked], Found]


def scored(scores: Scores, rows: int) -> Found:
    """Means by place."""
    mean = scores.mean().stack(place=scores.places)
    places = (p if isinstance(p, tuple) else (p,) for p in mean["place"].values.tolist())
    return {tuple(map(str, p)): float(v) for p, v in zip(places, mean.values, strict=True)}, rows


def cross(asked: Asked) -> list[str]:
    """The cross-attention layers."""
    return [str(site) for site in layers(asked.model)]


def mediated(asked: Asked, source: Any) -> Found:
    found = trace_denoiser(*asked.first, sites=cross(asked), source=source, **asked.swapped)
    return scored(found.indirect_effect, found.rows)


def patched(asked: Asked, sites: Sequence[str] | None) -> Found:
    found = attribution_patching(*asked.first, sites=sites, recompute=False, **asked.swapped)
    return scored(found, int(found.values.attrs["rows"]))


def growing(asked: Asked) -> Found:
    """LocoGen with windows of one layer; its sites are the layers' keys."""
    q = asked.question
    found = locogen(asked.model, [q.prompt], [q.other], widest=1, **asked.settings)
    scores, rows = scored(found, int(found.values.attrs["rows"]))
    return {(site.replace("k_proj", "out"),): v for (site, _), v in scores.items()}, rows


def without_heads(asked: Asked) -> Found:
    """How far the label falls without each head of a layer, all heads together."""
    q = asked.question
    sites = [site.replace(".out", ".z") for site in cross(asked)]
    found = head_ablation(asked.model, [q.prompt], others=[q.other], sites=sites, **asked.settings)
    heads = found.mean().sum("head")
    rows = int(found.values.attrs["rows"])
    return {(site.replace(".z", ".out"),): float(heads.sel(site=site)) for site in sites}, rows


def straight(asked: Asked) -> Found:
    """What each layer says to the output and to nothing else, by path patching."""
    found = path_effect(*asked.first, cross(asked), ["unet/out/eps"], **asked.swapped)
    mean = found.mean().isel(receiver=0)
    return {(str(s),): float(mean.sel(site=s)) for s in mean["site"].values}, int(found.values.attrs["rows"])


def compared(asked: Asked, sites: Sequence[str] | None, windows: Sequence[range] | None) -> Found:
    """What swapping a site in from the planted model brings to the model as it was."""
    found = compare(
        asked.model,
        asked.place.applied,
        [asked.question.prompt],
        sites=sites,
        windows=windows,
        **asked.settings,
    )
    return scored(Scores(found.data["swapped"]), int(found.data.attrs["rows"]))


def raced(asked: Asked) -> Found:
    """A race over twice the seeds, of which it need not run all."""
    rows = 0

    def score(some: Sequence[Any], seeds: Sequence[int]) -> Scores:
        nonlocal rows
        made = trace_denoiser(
            *asked.first, sites=some, source="in_place", **{**asked.swapped, "seeds": seeds}
        )
        rows += made.rows
        return made.indirect_effect

    every = range(2 * max(2, len(asked.seeds)))
    found = race(score, cross(asked), seeds=every, k=1, first=2).places["mean"]
    return {(str(site),): float(mean) for site, mean in found.items()}, rows


def restored_text(asked: Asked, settings: Mapping[str, Any]) -> Found:
    found = trace_text(*asked.first, tokens="roles", **settings)
    return scored(found.indirect_effect, found.rows)


def windowed(asked: Asked, source: Any) -> Found:
    found = trace_denoiser(*asked.first, windows=asked.windows(), source=source, **asked.swapped)
    return scored(found.indirect_effect, found.rows)


def switched(asked: Asked) -> Found:
    """How far insertion falls and removal rises over each window of switches."""
    q = asked.question
    made = decided(asked.model, q.other, q.prompt, stride=STEPS // 3, **asked.settings)
    curve = made.data["score"].mean(["prompt", "seed"])
    found: dict[Place, float] = {}
    for window in asked.windows():
        ends = [curve.sel(switch=k) for k in (window.start, window.stop)]
        gain = {
            d: float(ends[1].sel(direction=d) - ends[0].sel(direction=d)) for d in ("insertion", "removal")
        }
        found["any site", window_name(When(window))] = (gain["removal"] - gain["insertion"]) / 2
    return found, made.rows


NOISE = Noise(draws=1)
UNPLANTED = "compared with the unplanted model"
TEXT_SITES = ["text_encoder/*/self_attn.out", "text_encoder/*/mlp.out"]
METHODS: Mapping[str, Mapping[str, Method]] = {
    "layers": {
        "mediation, trajectory": lambda a: mediated(a, "trajectory"),
        "mediation, in place": lambda a: mediated(a, "in_place"),
        "locogen": growing,
        "attribution patching": lambda a: patched(a, cross(a)),
        "race, in place": raced,
        "heads ablated": without_heads,
        "paths to the output": straight,
    },
    "fact": {
        "text tracing, swapped word": lambda a: restored_text(a, a.swapped),
        "text tracing, noise": lambda a: restored_text(a, {**a.settings, "corruption": NOISE}),
        f"{UNPLANTED} (sites)": lambda a: compared(a, TEXT_SITES, None),
    },
    "direction": {
        "mediation, trajectory": lambda a: windowed(a, "trajectory"),
        "mediation, in place": lambda a: windowed(a, "in_place"),
        "attribution patching (sites)": lambda a: patched(a, None),
        "decided (windows)": switched,
        f"{UNPLANTED}": lambda a: compared(a, None, a.windows()),
    },
}


def is_true(asked: Asked, place: Place) -> bool:
    """Whether a candidate is where something was planted."""
    truth = asked.question.truth
    site, *more = place
    right = site in ("any site", *map(str, truth.sites))
    if more and truth.token is not None:
        right &= more[0] == truth.token
    if more and truth.snr is not None:
        there = {window_name(When(w)): tuple(w) for w in asked.windows()}[more[0]]
        right &= there == truth.steps(asked.model.steps(STEPS))
    return right


def judged(asked: Asked, scores: Mapping[Place, float]) -> dict[str, float]:
    """Hits, area under the ranking curve, and what chance gives; a score that is no number comes last."""
    values = np.nan_to_num(np.array(list(scores.values())), nan=-np.inf)
    right = np.array([is_true(asked, place) for place in scores])
    order = right[np.argsort(-values, kind="stable")]
    a, b = values[right][:, None], values[~right][None]
    n, t = len(right), int(right.sum())
    return {
        "top 1": float(order[:1].any()),
        "top 3": float(order[:3].any()),
        "area": float(((a > b) + 0.5 * (a == b)).mean()),
        "chance 1": t / n,
        "chance 3": 1 - comb(n - t, 3) / comb(n, 3),
        "candidates": n,
    }


def studies(number: int | None) -> Iterator[tuple[str, int, Planted, Question, str, Method]]:
    """Every method on every question of every place."""
    for kind, methods in METHODS.items():
        for i, place in list(enumerate(planted(kind)))[:number]:
            for question in place.questions:
                for name, method in methods.items():
                    yield kind, i, place, question, name, method


def read(path: Path) -> pd.DataFrame:
    """What was measured; a question without a name has an empty one, which is no missing number."""
    return pd.read_csv(path, dtype={"asked": object}).fillna({"asked": ""})


def measure(model: denoscope.Model, path: Path, number: int | None, seeds: Sequence[int]) -> pd.DataFrame:
    """Ask what the table does not hold yet."""
    known = read(path).to_dict("records") if path.is_file() else []
    done = {(r["kind"], r["place"], r["asked"], r["method"]) for r in known}
    judge = load_judge("emoji")
    path.parent.mkdir(parents=True, exist_ok=True)
    for kind, i, place, question, name, method in studies(number):
        key = kind, i, question.attribute if kind == "layers" else "", name
        if key in done:
            continue
        metric = judge_probability(judge, question.attribute, question.label)
        asked, begun = Asked(model, question, metric, seeds, place), time.perf_counter()
        # a comparison puts the plant into its second model itself
        with nullcontext() if name.startswith(UNPLANTED) else place.applied(model):
            scores, rows = method(asked)
        row = dict(zip(("kind", "place", "asked", "method"), key, strict=True))
        spent = {"rows": rows, "seconds": time.perf_counter() - begun}
        known.append({**row, **judged(asked, scores), **spent})
        write_bytes(path, pd.DataFrame(known).to_csv(index=False).encode())
        sys.stdout.write(f"{known[-1]}\n")
        sys.stdout.flush()
    return pd.DataFrame(known)


def summary(found: pd.DataFrame) -> str:
    """One line for each kind and method, with 95 % intervals over places."""
    rows = []
    for (kind, asked, method), some in found.fillna({"asked": ""}).groupby(
        ["kind", "asked", "method"], sort=False
    ):
        n = len(some)
        cells = []
        for name, how in (("top 1", proportion), ("top 3", proportion), ("area", interval)):
            told = how(xr.DataArray(some[name].to_numpy(), dims="place"), ["place"])
            cells.append(bounds({k: float(told[k].clip(0, 1)) for k in ("mean", "low", "high")}))
        chance = [f"{some[name].mean():.2f}" for name in ("chance 1", "chance 3")]
        what = f"{kind}, {asked} word" if asked else str(kind)
        cost = f"{some['rows'].mean():,.0f}"
        many = str(n), f"{some['candidates'].mean():.0f}"
        rows.append((what, str(method), *many, cells[0], chance[0], cells[1], chance[1], cells[2], cost))
    ranks = "first is right", "by chance", "one of three is", "by chance", "area"
    return table(("planted", "method", "places", "candidates", *ranks, "rows"), rows)


@bfloat16()
def main() -> None:
    """Ask all methods, and write the summary."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "found" / "truth")
    parser.add_argument("--places", type=int, help="so many places of each kind alone")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = denoscope.load("emoji")
    path = options.output / fingerprint(model)[:12] / "truth.csv"
    found = summary(measure(model, path, options.places, SEEDS))
    sys.stdout.write(found + "\n")
    write(PAGE, "planted-truth", found)


if __name__ == "__main__":
    main()
