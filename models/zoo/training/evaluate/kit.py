"""Write the evaluation data that ship: real pictures, scenes, captions, features, each with its hash."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from ....judges.embedded import read_judge
from ....store.disk import write_bytes
from ...evaluation_data import seal
from ...sheets import packed
from ..data import world
from ..data.captions import caption, plural, subject
from ..data.compose import BACKGROUNDS, NUMBERS, Scene, on_background, pair, several
from ..data.pictures import Pictures, Record
from ..data.sampling import Mix, items, weights

REAL = 500
SCENES = 200
CAPTIONS = 2000
COUNTED = 20_000
RARE = 20
"""Fewer captions than these make a pair of words rare."""


def write(pictures: Pictures, model: Path, mix: Mix, folder: Path) -> None:
    """Write the data; an older folder's files are replaced.

    Args:
        pictures: all that the builder rendered.
        model: folder of the model whose judge the features are of.
        mix: of the training captions.
        folder: where to write.
    """
    folder.mkdir(parents=True, exist_ok=True)
    train, out = world.split(pictures)
    real = unseen(pictures, out)
    write_bytes(folder / "real.webp", packed(real.pixels, "WEBP"))
    _json(folder / "real.json", [_label(r, r.style in world.STYLES) for r in real.records])
    made = scenes(train)
    sheet = torch.stack([scene.picture for scene in made]).mul(255).round().byte()
    write_bytes(folder / "scenes.webp", packed(sheet, "WEBP"))
    masks = torch.cat([scene.opacity for scene in made]) > 0.5
    write_bytes(folder / "masks.png", packed(masks[:, None].byte() * 255, "PNG"))
    _json(folder / "scenes.json", [_scene(scene) for scene in made])
    _json(folder / "captions.json", captions(train, mix))
    judge = read_judge(model)
    with torch.no_grad():
        features = torch.cat([judge.features(part) for part in train.on_white().split(256)])
    write_bytes(folder / "reference.safetensors", safetensors.torch.save({"features": features.half()}))
    weights_file = model / "judge" / "attributes.safetensors"
    _json(folder / "reference.json", {"judge": hashlib.sha256(weights_file.read_bytes()).hexdigest()})
    seal(folder)


def unseen(pictures: Pictures, held_out: Pictures) -> Pictures:
    """The held-out combinations, then concepts of the world by vendors whose style it does not know.

    The latter come evenly over concepts, in random order.
    """
    rng = random.Random(0)
    concepts: dict[str, list[int]] = defaultdict(list)
    for i, record in enumerate(pictures.records):
        kinds = world.PEOPLE if record.is_person else world.THINGS
        if record.style not in world.STYLES and record.concept in kinds and record.hair == "none":
            concepts[record.concept].append(i)
    for own in concepts.values():
        rng.shuffle(own)
    rounds = itertools.zip_longest(*(concepts[name] for name in rng.sample(sorted(concepts), len(concepts))))
    chosen = [i for turn in rounds for i in turn if i is not None][: REAL - len(held_out)]
    others = pictures.select(chosen)
    return Pictures(torch.cat([held_out.pixels, others.pixels]), held_out.records + others.records)


def scenes(pictures: Pictures) -> list[Scene]:
    """Scenes in full wording, of subjects without skin tone: half pairs, the rest grounds and counts."""
    rng = random.Random(0)
    single = [i for i, record in enumerate(pictures.records) if record.skin == "none"]
    likely = weights(pictures.records)[single].tolist()
    return [_made(pictures, single, rng.choices(single, likely)[0], kind, rng) for kind in _kinds()]


def _kinds() -> list[str]:
    return [("ground", "pair", "count", "pair")[i % 4] for i in range(SCENES)]


def _made(pictures: Pictures, single: Sequence[int], first: int, kind: str, rng: random.Random) -> Scene:
    record, pixels = pictures.records[first], pictures.pixels[first]
    if kind == "ground":
        hidden = {record.colour, *record.name.split()}  # a red square on a red ground
        return on_background(pixels, record, rng.choice([c for c in BACKGROUNDS if c not in hidden]))
    if kind == "count":
        return several(pixels[None], record, rng.choice(tuple(NUMBERS)))
    others = [(i, pictures.records[i]) for i in single]
    second = rng.choice([i for i, r in others if r.style == record.style and r.concept != record.concept])
    return pair(pictures.pixels[[first, second]], record, pictures.records[second])


def captions(pictures: Pictures, mix: Mix) -> dict[str, Any]:
    """Captions as they come in training without empty ones, and how often words stand in many of them."""
    stream = items(pictures, 0, Mix(mix.composed, 0.0, mix.people, mix.kinds))
    shown = list(itertools.islice(stream, COUNTED))
    words: Counter[str] = Counter()
    pairs: Counter[tuple[str, str]] = Counter()
    genders: dict[str, Counter[str]] = defaultdict(Counter)
    for item in shown:
        held = sorted(set(item.caption.replace(",", "").split()))
        words.update(held)
        pairs.update(itertools.combinations(held, 2))
        record = pictures.records[item.index]
        if record.is_person:
            genders[record.concept][record.gender] += 1
    return {
        "texts": [item.caption for item in shown[:CAPTIONS]],
        "counted": COUNTED,
        "words": dict(words.most_common()),
        "pairs": [(*both, n) for both, n in pairs.most_common() if n >= RARE],
        "genders": {c: {g: round(n / own.total(), 4) for g, n in own.items()} for c, own in genders.items()},
    }


def _label(record: Record, known: bool) -> dict[str, Any]:
    return {
        "name": record.name,
        "concept": record.concept,
        "style": record.style,
        "gender": record.gender,
        "skin": world.skin_name(record) or record.skin,
        "colour": record.colour,
        "licence": record.licence,
        "codepoint": record.codepoint,
        "caption": caption(record),
        "unseen": "combination" if known else "style",
    }


def _scene(scene: Scene) -> dict[str, Any]:
    first = scene.records[0]
    kind = "ground" if len(scene.boxes) == 1 else "count" if len(set(scene.records)) == 1 else "pair"
    ground = next((c for c in BACKGROUNDS if f" {c} background" in scene.caption), "white")
    told = [
        {
            "words": plural(subject(record)) if kind == "count" else subject(record),
            "concept": record.concept,
            "gender": record.gender,
            "box": box,
        }
        for record, box in zip(scene.records, scene.boxes, strict=True)
    ]
    return {
        "kind": kind,
        "caption": scene.caption,
        "style": first.style,
        "ground": ground if kind == "ground" else "white",
        "subjects": told,
    }


def _json(path: Path, values: Any) -> None:
    write_bytes(path, (json.dumps(values, separators=(",", ":")) + "\n").encode())
