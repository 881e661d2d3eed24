"""Write the model card and its figures: ``card.md`` and ``card.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ...folders import shared
from ..assemble import GUIDANCE, STEPS
from ..data import world
from ..data.vendor import UNICODE_NAMES, VENDORS
from ..parts import PARTS
from .evaluation import Evaluation
from .generate import weights_hash
from .people import Found
from .scoring import Mean, Share

AIMS = {
    "style": 0.94,
    "concept, 50 common ones, top-1 of all": 0.92,
    "gender, man or woman asked for": 0.88,
    "skin tone": 0.90,
    "right subject in its place: two subjects": 0.40,
}
"""What the first column should reach."""

NEAR = 0.08
"""How far held-out combinations may stay behind all that was asked for."""


def write(folder: Path, evaluation: Evaluation, notes: str) -> None:
    """Write ``card.md`` and ``card.json`` of a model that reads text.

    Args:
        folder: an assembled model.
        evaluation: of that model.
        notes: Markdown: how these weights came to be, as far as the logs do not tell.
    """
    shown = {
        "evaluation": evaluation,
        "guidance": GUIDANCE,
        "questions": list(next(iter(evaluation.scores.values()))),
        "verdicts": verdicts(evaluation),
        "behind": behind(evaluation),
        "near": NEAR,
    }
    _write(folder, shown, figures(evaluation), notes)


def write_people(folder: Path, found: Found, notes: str, trained: int, shown: int) -> None:
    """Write ``card.md`` and ``card.json`` of a model that paints people without a prompt.

    Args:
        folder: an assembled model.
        found: by its evaluation.
        notes: Markdown: how these weights came to be, as far as the logs do not tell.
        trained: the number of training pictures.
        shown: the number of pictures on the sheet of samples.
    """
    near, far = found.nearest["generated"], found.nearest["held out"]
    verdict = "they are nearer than unseen pictures are, so many are copies or nearly so"
    if near >= far:
        verdict = "no nearer than unseen pictures are"
    told = {
        "generated": len(found.pictures),
        "steps": STEPS,
        "aims": {},
        "shares": {k: [_plain(s) for s in shares] for k, shares in found.shares.items()},
        "sure": found.sure,
        "frechet": found.frechet,
        "nearest": found.nearest,
    }
    side = found.pictures.shape[-1]
    more = {"found": found, "verdict": verdict, "number": trained, "shown": shown, "side": side}
    _write(folder, more | {"generated": len(found.pictures)}, told, notes)


def _write(folder: Path, shown: Mapping[str, Any], numbers: Mapping[str, Any], notes: str) -> None:
    environment = Environment(
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        loader=FileSystemLoader(Path(__file__).parent / "cards"),
    )
    told = json.loads((folder / "world.json").read_text())
    text = environment.get_template(f"{told['name']}.md.jinja").render(
        steps=STEPS,
        trained=any(history(folder).values()),
        rows=training_rows(history(folder)),
        notes=notes.strip(),
        world=world,
        told=told,
        vendors=VENDORS,
        names=" ".join(UNICODE_NAMES),
        size=_size(folder),
        **shown,
    )
    (folder / "card.md").write_text(text)
    (folder / "card.json").write_text(
        json.dumps({"weights": weights_hash(folder), **numbers}, indent=1) + "\n"
    )


def _size(folder: Path) -> int:
    """Bytes of its weights, with those of parts that it shares."""
    files = {f for place in (folder, *shared(folder).values()) for f in place.rglob("*.safetensors")}
    return sum(file.stat().st_size for file in files)


def verdicts(evaluation: Evaluation) -> dict[str, str]:
    """Each aim, and whether the generated pictures met it."""
    found = {**evaluation.scores["generated"], **evaluation.composed.get("generated", {})}
    return {
        question: f"{100 * aim:.0f} %: {'met' if found[question].value >= aim else 'not met'}"
        for question, aim in AIMS.items()
        if question in found
    }


def behind(evaluation: Evaluation) -> dict[str, str]:
    """How far held-out combinations stay behind all that was generated, where there is an aim."""
    found, unseen = (evaluation.scores.get(f"generated{x}", {}) for x in ("", ", held-out combinations"))
    gaps = {q: found[q].value - unseen[q].value for q in AIMS if q in unseen}
    return {
        question: f"{100 * gap:.1f} ({'met' if gap <= NEAR else 'not met'})" for question, gap in gaps.items()
    }


def figures(evaluation: Evaluation) -> dict[str, Any]:
    """The numbers of a card, for programs."""
    return {
        "generated": len(evaluation.records),
        "steps": STEPS,
        "guidance": GUIDANCE,
        "aims": AIMS,
        "scores": {
            name: {question: _plain(value) for question, value in scores.items()}
            for name, scores in evaluation.scores.items()
        },
        "frechet": evaluation.frechet,
        "composed": {
            name: {question: _plain(value) for question, value in scores.items()}
            for name, scores in evaluation.composed.items()
        },
    }


def history(folder: Path) -> dict[str, dict[str, float]]:
    """How each part of an assembled model was trained: empty for parts taken from elsewhere."""
    found: dict[str, dict[str, float]] = json.loads((folder / "training.json").read_text())
    return found


def training_rows(runs: Mapping[str, Mapping[str, float]]) -> list[tuple[str, str]]:
    """What was trained by which script for how long, and what was kept from an earlier run."""
    rows = []
    for name, run in runs.items():
        told = "taken from a model trained before (below)"
        if run:
            step, minutes = PARTS[name].step, run["minutes"]
            told = f"the step `{step}`: {run['steps']:,} updates in {minutes:.0f} minutes by the clock"
        rows.append((name, told))
    return rows


def _plain(value: Share | Mean) -> dict[str, Any]:
    if isinstance(value, Share) and value.asked:
        return {**asdict(value), "value": value.value, "interval": value.interval}
    return asdict(value)
