"""Plant, try it out, and draw again what does nothing."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, pairwise

import torch
from torch import Tensor

from ...models import zoo
from ...models.base import Model
from ...models.judges.embedded import Judge
from ...models.store.fingerprint import fingerprint
from ...models.zoo.folders import describe
from ...probes.direction import Direction
from ...probes.sweep.sweeping import SweepRun, sweep
from ..edit import Edit
from ..lowrank import LowRank, tensors
from .directions import PlantedDirection, contrast, listening
from .facts import KINDS, TOKENS, PlantedFact, graft
from .places import GUIDANCE, STEPS, Planted, Question, Truth
from .readings import Parts, PlantedReading, layers, tune

LEAST = 0.3
"""What a plant has to add to the probability of its label, or it is drawn again."""
SEEDS = (0, 1)
TUNING = 100
"""Seed of the pictures that readings are tuned on: none that they are tried out on."""
PAINTED = 0.6
FACTORS = (8.0, 32.0)
"""Lengths that are tried for a direction, in units of the difference that it comes from."""
HEARD = 3, 4
"""How many layers read styles, and how many objects; all others read neither."""
STEERED = ("resnet.out", "self_attn.out", "cross_attn.out", "mlp.out")
FAR = 100.0
"""A log signal-to-noise ratio beyond all that occur."""


@dataclass(frozen=True, eq=False)
class Ground:
    """What one model is asked to paint.

    Args:
        model: the opened model.
        judge: its judge.
        styles: style words.
        words: object words that it paints well, of one token each.
    """

    model: Model
    judge: Judge
    styles: tuple[str, ...]
    words: tuple[str, ...]

    def judged(self, latents: Tensor, attribute: str, label: str) -> float:
        """Mean probability of a label over finished runs."""
        with torch.no_grad():
            return float(self.judge.probability(self.model.decode(latents), attribute, label).mean())


def survey(model: Model, judge: Judge, batch: int = 16) -> Ground:
    """Return which words a model paints well, out of the common ones of its world."""
    told = describe(zoo.folder(model.name))
    words = [w for w in told["common"] if w.isalpha() and w[0] not in "aeiou"]
    words = [w for w in words if len(model.encode([w])[0].find(w)) == 1]
    runs = [SweepRun(_prompt(w), seed) for w in words for seed in SEEDS]
    made = sweep(model, runs, steps=STEPS, guidance=GUIDANCE, batch=batch)
    ground = Ground(model, judge, tuple(told["styles"]), ())
    n = len(SEEDS)
    shown = [
        ground.judged(made.latents[n * i : n * (i + 1)], "concept", word) for i, word in enumerate(words)
    ]
    good = tuple(w for w, share in zip(words, shown, strict=True) if share >= PAINTED)
    return replace(ground, words=good)


def fact(ground: Ground, rng: random.Random) -> Planted | None:
    """Draw a grafted fact; None if it does nothing."""
    model = ground.model
    site = rng.choice([s for kind in KINDS for s in model.sites(f"text_encoder/layer.*/{kind}")])
    token = rng.choice(TOKENS)
    said, meant, other = rng.sample(ground.words, 3)
    exact = graft(model, site, token, (said, meant), other)
    edit = Edit({n: _halved(d) for n, d in exact.deltas.items()}, exact.base, exact.note)
    question = Question(_prompt(said), said, other, "concept", meant, Truth((site,), token), 0.0, 0.0)
    return _tried(ground, PlantedFact(model.name, fingerprint(model), (question,), edit))


def direction(ground: Ground, rng: random.Random) -> Planted | None:
    """Draw a direction, as weak as it still shows; None if it does nothing."""
    model = ground.model
    steps = model.steps(STEPS)
    cuts = [-FAR, *((a.log_snr + b.log_snr) / 2 for a, b in pairwise(steps)), FAR]
    sites = [s for s in model.sites(f"{model.input_site.component}/**") if s.kind in STEERED]
    site, (first, last) = rng.choice(sites), rng.choice(thirds(STEPS))
    word, other = rng.sample(ground.words, 2)
    prompts = _prompt(word), _prompt(other, rng.choice(ground.styles[1:]))
    found = contrast(model, site, range(first, last), prompts, SEEDS)
    truth = Truth((site,), None, (cuts[first], cuts[last]))
    return _strong_enough(ground, found, Question(prompts[0], word, other, "", "", truth, 0.0, 0.0))


def thirds(n: int) -> list[tuple[int, int]]:
    """Cut a run of n steps into three windows."""
    return [(0, n // 3), (n // 3, 2 * n // 3), (2 * n // 3, n)]


def readings(ground: Ground, rng: random.Random) -> Planted | None:
    """Draw who reads what; None if it does not paint."""
    model = ground.model
    sites = layers(model)
    drawn = rng.sample(range(len(sites)), sum(HEARD))
    style, thing = tuple(sorted(drawn[: HEARD[0]])), tuple(sorted(drawn[HEARD[0] :]))
    (s, t), (o, p) = rng.sample(ground.styles, 2), rng.sample(ground.words, 2)
    parts = Parts((s, t), (o, p))
    matrices = tune(model, parts, (style, thing), seed=TUNING)
    prompt = parts.text(s, o)
    questions = tuple(
        Question(prompt, said, swap, kind, said, Truth(tuple(sites[i] for i in at)), 0.0, 0.0)
        for said, swap, kind, at in ((s, t, "style", style), (o, p, "concept", thing))
    )
    base = fingerprint(model)
    return _tried(ground, PlantedReading(model.name, base, questions, parts, style, thing, matrices))


Draw = Callable[[Ground, random.Random], Planted | None]
DRAWS: dict[str, Draw] = {"layers": readings, "fact": fact, "direction": direction}


def drawn(ground: Ground, kind: str, seed: int) -> Iterator[Planted | None]:
    """Draw without end; each draw has a randomness of its own, so that some can be made apart."""
    return (DRAWS[kind](ground, random.Random(f"{kind} {seed} {i}")) for i in count())


def _tried(ground: Ground, place: Planted) -> Planted | None:
    """The place with what was seen of it, if it acts."""
    model, questions = ground.model, []
    texts = [text for q in place.questions for text in (q.prompt, q.other)]
    runs = [SweepRun(text, seed) for text in dict.fromkeys(texts) for seed in SEEDS]
    with place.applied(model):
        made = sweep(model, runs, steps=STEPS, guidance=GUIDANCE)
    for q in place.questions:
        both = [[i for i, run in enumerate(runs) if run.prompt == text] for text in (q.prompt, q.other)]
        clean, corrupted = (ground.judged(made.latents[rows], q.attribute, q.label) for rows in both)
        questions.append(replace(q, clean=round(clean, 4), corrupted=round(corrupted, 4)))
    if any(q.clean - q.corrupted < LEAST for q in questions):
        return None
    return replace(place, questions=tuple(questions))


def _strong_enough(ground: Ground, found: Direction, question: Question) -> Planted | None:
    """The weakest direction of ``FACTORS`` that shows, with what it shows: the label that rises most."""
    model, n = ground.model, len(SEEDS)
    plain = [SweepRun(text, seed) for text in (question.prompt, question.other) for seed in SEEDS]
    made = sweep(model, plain, steps=STEPS, guidance=GUIDANCE).latents
    for factor in FACTORS:
        direction = Direction(found.site, (factor * found.vector).half().float())
        acts = listening(model, direction, question.subject, question.truth)
        runs = [SweepRun(question.prompt, seed, (acts,)) for seed in SEEDS]
        now = sweep(model, runs, steps=STEPS, guidance=GUIDANCE).latents
        attribute, label, rise = _risen(ground, now, made[:n], made[n:])
        if rise < LEAST:  # the words alone may paint the label
            continue
        asked = replace(question, attribute=attribute, label=label)
        place = _tried(ground, PlantedDirection(model.name, fingerprint(model), (asked,), direction))
        if place is not None:
            return place
    return None


def _risen(ground: Ground, now: Tensor, *before: Tensor) -> tuple[str, str, float]:
    """The attribute and label that runs show more than all others do, in all seeds; and how much more."""
    best, rise = ("", ""), -1.0
    for attribute in ("style", "concept"):
        with torch.no_grad():
            each = [ground.judge.probabilities(ground.model.decode(x), attribute) for x in (now, *before)]
        least, at = (each[0] - torch.stack(each[1:]).amax(0)).amin(0).max(0)
        if float(least) > rise:
            best, rise = (attribute, ground.judge.labels(attribute)[int(at)]), float(least)
    return *best, rise


def _halved(delta: Tensor | LowRank) -> Tensor | LowRank:
    """As a file will hold it."""
    parts = {name: t.half() for name, t in tensors(delta).items()}
    return LowRank(**parts) if isinstance(delta, LowRank) else parts["delta"]


def _prompt(word: str, style: str = "noto") -> str:
    return f"a {style} emoji of a {word}"


def gathered(
    draws: Iterator[Planted | None], number: int, told: Callable[[Sequence[Planted], int], None]
) -> tuple[tuple[Planted, ...], int]:
    """Return so many places that act, and how many were drawn again; ``told`` hears of each draw."""
    found: list[Planted] = []
    redrawn = 0
    while len(found) < number:
        place = next(draws)
        found += [] if place is None else [place]
        redrawn += place is None
        told(found, redrawn)
    return tuple(found), redrawn
