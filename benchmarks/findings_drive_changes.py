"""Do findings help? Changes where an analysis says, against random places and everywhere, on ``emoji``.

    python benchmarks/findings_drive_changes.py        24 word pairs: some two hours of one core

For each of 24 word pairs each analysis is run as an investigation runs it, and its change is made where it
says; beside it the same kind of change, of equal size, at a place, word,
direction or set of features drawn at random, and everywhere. All are tried on the same prompts and seeds.
What counts is efficacy times specificity, pair by pair. Writes the table of docs/investigation.md; each pair
is kept in --output under a hash of the weights, so that a run that was stopped goes on, on another machine
too. The dictionary is kept in build/.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Mapping, Set
from dataclasses import replace
from functools import cache, partial, reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from faster import bfloat16
from own_words import PAIRS
from pages import ROOT, bounds, table, write

import denoscope
from denoscope.analysis import BiasFeatures, Mediation, random_like
from denoscope.analysis.intervals import interval
from denoscope.editing import uce
from denoscope.investigation import Case
from denoscope.investigation.case import Setup, prepare
from denoscope.investigation.changes import by_directions, by_features, by_information, by_mediation
from denoscope.investigation.changes.change import Change
from denoscope.investigation.changes.ground import Ground, Offers
from denoscope.investigation.changes.judging import judged, score
from denoscope.investigation.stages.denoiser_cause import denoiser_cause
from denoscope.investigation.stages.features import features
from denoscope.investigation.stages.information import information, words_of
from denoscope.investigation.stages.text_cause import text_cause
from denoscope.models.store.disk import write_bytes
from denoscope.models.store.fingerprint import fingerprint
from denoscope.probes import Dictionary, Learning, train_dictionary

PAGE = "docs/investigation.md"
TAKEN = {"professions": 8, "things": 8, "colours": 3, "skin tones": 3, "styles": 2}
"""So many pairs of each kind, 24 together."""
CHOSEN_ON = (0, 1, 2, 4, 6, 8, 9, 11, 13, 16, 17, 19, 22)
"""Pairs that showed that kept texts should hold by their last word, and that three layers do more."""
FOUND = ROOT / "benchmarks" / "found" / "drive"
RUN: Mapping[str, Any] = {"seeds": 3, "steps": 8, "draws": 1}
SITE = "unet/up.1.res.0/resid.post"
UPDATES = 1500
ARMS = ("found", "random", "everywhere")
NAMES = {
    "text": "mediation: layer of the text encoder, quickfix",
    "denoiser": "mediation: three cross-attentions, locoedit",
    "one": "mediation: one cross-attention, locoedit",
    "information": "information: redundant words, uce",
    "direction": "directions: the text's difference against a random one",
    "sites": "directions: three sites that mediation found",
    "site": "directions: one site that mediation found",
    "features": "features: by attribution against as active ones",
}
Made = Callable[[], Change]


def silent(*_: Any) -> None:
    """No bar."""


def cases() -> list[tuple[str, str, str]]:
    """The pairs, of each kind the first."""
    return [pair for kind, n in TAKEN.items() for pair in PAIRS[kind][:n]]


def trained(model: denoscope.Model, folder: Path) -> Dictionary:
    """A dictionary of all prompts, before and after; kept."""
    path = folder / "dictionary.safetensors"
    if not path.exists():
        texts = [t for prompt, about, to in cases() for t in (prompt, prompt.replace(about, to))]
        how = {"steps": RUN["steps"], "learning": Learning(updates=UPDATES)}
        train_dictionary(model, SITE, texts, seeds=range(500, 500 + len(texts)), **how).save(path)
    return Dictionary.load(path)


def arms(setup: Setup, dictionary: Callable[[], Dictionary], wanted: Set[str]) -> dict[str, dict[str, Made]]:
    """For each analysis that is wanted how its change is made where it says, at random, and everywhere."""
    ground, made = Ground(setup, silent), dict[str, dict[str, Made]]()
    if "text" in wanted:
        made["text"] = _in_text(ground, Mediation(text_cause(setup, silent)))
    if "direction" in wanted:
        other = random_like(by_directions.text_direction(ground))
        made["direction"] = {
            "found": lambda: by_directions.of_text(ground),
            "random": lambda: by_directions.of_text(ground, other),
        }
    if wanted & {"denoiser", "one", "sites", "site"}:
        made |= _in_denoiser(ground, Mediation(denoiser_cause(setup, silent)))
    if "information" in wanted:
        made["information"] = _by_words(ground)
    if "features" in wanted:
        made["features"] = _by_features(ground, dictionary())
    return {name: ways for name, ways in made.items() if name in wanted and ways}


def drawing(ground: Ground) -> random.Random:
    """What draws at random: the same for a prompt each time."""
    return random.Random(ground.setup.case.prompt)


def _in_text(ground: Ground, text: Mediation) -> dict[str, Made]:
    states = [str(s) for s in text.data["site"].values]
    in_text = partial(by_mediation.in_text, ground, text)
    other = drawing(ground).choice(states)
    return {
        "found": in_text,
        "random": lambda: in_text(other),
        "everywhere": lambda: _edited("text", reduce(add, [in_text(s).edit for s in states])),
    }


def _in_denoiser(ground: Ground, denoiser: Mediation) -> dict[str, dict[str, Made]]:
    """Edits and steerings of the attentions that were found, the first alone and three together."""
    reading = [str(s) for s in denoiser.data["site"].values if str(s).endswith("cross_attn.out")]
    ranked, source = by_mediation.reading_sites(denoiser), drawing(ground)
    three = ranked[: by_mediation.READ]
    other = source.choice([s for s in reading if s != ranked[0]])
    others = source.sample([s for s in reading if s not in three], len(three))
    in_layer = partial(by_mediation.in_denoiser, ground, denoiser)

    def steered(sites: list[str]) -> Made:
        return lambda: by_directions.at_sites(ground, sites)[0]

    return {
        "denoiser": {
            "found": in_layer,
            "random": lambda: in_layer(others),
            "everywhere": lambda: _edited("all", uce(ground.model, ground.request, keep=ground.kept)),
        },
        "one": {"found": lambda: in_layer([ranked[0]]), "random": lambda: in_layer([other])},
        "sites": {"found": steered(three), "random": steered(others), "everywhere": steered(reading)},
        "site": {"found": steered([ranked[0]]), "random": steered([other])},
    }


def _by_features(ground: Ground, dictionary: Dictionary) -> dict[str, Made]:
    """Features by attribution, and as many that are as active; nothing where none tells the words apart."""
    seen = features(ground.setup, dictionary, silent)
    if "score" not in seen:
        return {}
    found = BiasFeatures(seen)
    return {
        "found": lambda: by_features.pushed(ground, found, dictionary),
        "random": lambda: by_features.pushed(ground, found, dictionary, "matched"),
    }


def _by_words(ground: Ground) -> dict[str, Made]:
    """Redundant words, others in their place, and all: with the same amounts; nothing where none is sure."""
    told = information(ground.setup, silent)
    if "pair_nats" not in told:
        return {}
    every = [w.name for w in words_of(ground.setup, ground.setup.case.prompt)]
    others = [w for w in every if w.lower() != ground.goal.about.lower()]
    sure = {s.word: min(1.0, s.share) for s in by_information.shared(told, ground.goal.about) if s.sure}
    sure = {w: share for w, share in sure.items() if share > 0}
    free = [w for w in others if w not in sure]
    if not sure or len(free) < len(sure):
        return {}
    drawn = dict(zip(drawing(ground).sample(free, len(sure)), sure.values(), strict=True))
    mean = sum(sure.values()) / len(others)
    sets = {"found": sure, "random": drawn, "everywhere": dict.fromkeys(others, mean)}
    return {k: partial(by_information.debiased, ground, v, "") for k, v in sets.items()}


def _edited(name: str, edit: Any) -> Change:
    return Change(name, "everywhere", "", edit)


def measured(
    pair: tuple[str, str, str], dictionary: Callable[[], Dictionary], wanted: Set[str]
) -> dict[str, dict[str, list[float]]]:
    """What each arm of each analysis that is wanted came to: efficacy, specificity, their product."""
    setup = prepare(Case(*pair, **RUN))
    offered, at = Offers(), dict[str, tuple[str, str]]()
    for analysis, made in arms(setup, dictionary, wanted).items():
        for arm, make in made.items():
            before = len(offered.changes)
            offered.attempt(analysis, arm, make)
            for i in range(before, len(offered.changes)):
                name = f"{analysis} {arm}"
                offered.changes[i] = replace(offered.changes[i], name=name)
                at[name] = (analysis, arm)
    seen = judged(setup, offered.changes, silent)
    kinds = [str(k) for k in seen.data["kind"].values]
    found: dict[str, dict[str, list[float]]] = {name: {} for name in wanted}
    for name, (analysis, arm) in at.items():
        if name in seen.failed:
            continue
        hit = seen.data["hit"].sel(change=name).values
        own, others = (hit[np.array([k == kind for k in kinds])] for kind in ("efficacy", "specificity"))
        numbers = [float(own.mean()), float(others.mean()), score(setup.goal, hit, kinds)]
        found[analysis][arm] = numbers
    plain = seen.data["hit"].sel(change="asked outright").values
    outright = float(plain[np.array([k == "efficacy" for k in kinds])].mean())
    return {**found, "asked outright": {"found": [outright, 1.0, outright]}}


def rows(found: list[dict[str, Any]]) -> list[list[str]]:
    """One row for each analysis."""
    made = []
    for analysis, name in NAMES.items():
        own = [f[analysis] for f in found if "found" in f.get(analysis, {})]
        cells = [_shares([f[arm] for f in own if arm in f]) for arm in ARMS]
        differences = [_difference([(f["found"], f[arm]) for f in own if arm in f]) for arm in ARMS[1:]]
        made.append([name, str(len(own)), *cells, *differences])
    return made


def _shares(some: list[list[float]]) -> str:
    """Efficacy and specificity, means over pairs."""
    if not some:
        return ""
    efficacy, specificity, _ = np.mean(some, 0)
    return f"{efficacy:.0%}, {specificity:.0%}"


def _difference(some: list[tuple[list[float], list[float]]]) -> str:
    """By how much efficacy times specificity is larger, with a 95 % interval over pairs."""
    if len(some) < 2:
        return ""
    values = xr.DataArray([a[2] - b[2] for a, b in some], dims="pair")
    return bounds({k: float(v) for k, v in interval(values, ["pair"]).items()})


def report(folder: Path, fits: Path) -> None:
    """Measure what is missing, and write the table."""
    model = denoscope.load("emoji")
    kept, made = (where / fingerprint(model)[:12] for where in (folder, fits))
    for where in (kept, made):
        where.mkdir(parents=True, exist_ok=True)
    dictionary, found = cache(partial(trained, model, made)), list[Any]()
    for i, pair in enumerate(cases()):
        path = kept / f"{i}.json"
        own = json.loads(path.read_text()) if path.exists() else {}
        if missing := NAMES.keys() - own.keys():
            own |= measured(pair, dictionary, missing)
            write_bytes(path, json.dumps(own).encode())
        found.append(own)
        print(i, pair, flush=True)
    outright = [f["asked outright"]["found"][0] for f in found]
    header = [
        "change",
        "pairs",
        *(f"{a}: reached, kept" for a in ARMS),
        "found - random",
        "found - everywhere",
    ]
    told = f"{len(found)} pairs; asked outright the unedited model reaches {np.mean(outright):.0%}.\n\n"
    write(PAGE, "findings-drive-changes", told + table(header, rows(found)) + untouched(found))


def untouched(found: list[dict[str, Any]]) -> str:
    """LocoEdit on the pairs alone that its settings were not chosen on."""
    own = [f["denoiser"] for i, f in enumerate(found) if i not in CHOSEN_ON and "denoiser" in f]
    both = _difference([(f["found"], f["random"]) for f in own if {"found", "random"} <= set(f)])
    return f"\n\nLocoEdit of three on the {len(own)} pairs that it was not chosen on: found - random {both}."


@bfloat16()
def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--output", type=Path, default=FOUND, help="what came out; the dictionary, elsewhere")
    torch.set_num_threads(1)
    output = parser.parse_args().output
    report(output, ROOT / "build" / "findings" / "drive" if output == FOUND else output)


if __name__ == "__main__":
    main()
