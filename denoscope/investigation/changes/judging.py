"""Every change on the same prompts and seeds: what it reached, what else it moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from ...analysis.edit_evaluation.appearance import colour_difference
from ...analysis.edit_evaluation.painting import Painter
from ...analysis.judging import fits
from ...models.errors import DenoscopeError
from ...models.images import to_array
from ...models.progress import Progress
from ...report.changes import NOTHING, OUTRIGHT
from ..case import Setup
from ..goal import Goal
from .change import Change

BATCH = 16


@dataclass(frozen=True)
class Tried:
    """One prompt that changes are tried on.

    Args:
        kind: efficacy, generality or specificity.
        template: with ``{}`` for the word.
        word: what the prompt says.
    """

    kind: str
    template: str
    word: str


def prompts_of(setup: Setup) -> list[Tried]:
    """The edited wording, others of it, and other things."""
    words, about = setup.wording, setup.goal.about
    tried = [Tried("efficacy", t, about) for t in words.efficacy]
    tried += [Tried("generality", t, about) for t in words.generality]
    tried += [Tried("specificity", t, w) for w, ts in words.neighbourhood.items() for t in ts]
    return tried


@dataclass(frozen=True, eq=False)
class Judged:
    """What came of all changes.

    Args:
        data: as ``judged`` says.
        failed: by name, why some changes could not be painted.
        kept: the edit of weights that did best, and the pictures [prompt, seed, ...] before, after and asked
            outright; None where there is no such edit, judge or oracle.
    """

    data: xr.Dataset
    failed: Mapping[str, str]
    kept: tuple[str, Mapping[str, Tensor]] | None


def judged(setup: Setup, changes: Sequence[Change], progress: Progress) -> Judged:
    """Paint every prompt with every seed under every change, and measure; the model is as it was afterwards.

    Returns:
        ``hit`` [change, prompt, seed]: 1 where the picture fits best what is wanted (of other things itself)
        of all that the goal compares, NaN without a judge; ``fit``: how well it fits the text that it should
        show; ``moved`` and ``colour``: how far it is from the picture before; ``pictures`` [change, picture,
        y, x, channel] of the edited wording. The first change is nothing, the second asks outright.
    """
    tried, goal = prompts_of(setup), setup.goal
    case, total = setup.case, (len(changes) + 2) * len(tried) * len(setup.seeds)
    painter = Painter(setup.model, setup.seeds, case.steps, setup.guidance, BATCH, progress, total)
    texts = [goal.written(t.template, t.word) for t in tried]
    before = painter(list(dict.fromkeys(texts)))
    looking = _Looking(setup, tried, torch.stack([before[t] for t in texts]))
    names, found, failed, best = [NOTHING], [looking.at(looking.before)], dict[str, str](), None
    kinds = [t.kind for t in tried]
    outright = _outright(setup, tried, painter, before)
    if outright is not None:
        names.append(OUTRIGHT)
        found.append(looking.at(outright))
    for change in changes:
        try:
            with change.applied(setup.model):
                painted = painter(list(dict.fromkeys(texts)))
        except DenoscopeError as error:
            failed[change.name] = " ".join(str(error).split())
            continue
        after = torch.stack([painted[t] for t in texts])
        names.append(change.name)
        found.append(looking.at(after))
        worth = score(goal, found[-1]["hit"], kinds)
        if change.edit and outright is not None and (best is None or worth > best[0]):
            best = worth, change.name, {"before": looking.before, "after": after, "oracle": outright}
    progress(total, total, "judged")
    dims = {"hit": ("prompt", "seed"), "fit": ("prompt", "seed"), "moved": ("prompt", "seed"),
            "colour": ("prompt", "seed"), "pictures": ("picture", "y", "x", "channel")}  # fmt: skip
    data: dict[str, Any] = {k: (("change", *d), np.stack([f[k] for f in found])) for k, d in dims.items()}
    coords: dict[str, Any] = {
        "change": names,
        "seed": setup.seeds,
        "kind": ("prompt", kinds),
        "text": ("prompt", texts),
    }
    rivals = list(goal.rivals(tuple(setup.wording.neighbourhood)))
    attrs = {
        "goal": goal.kind,
        "goal_said": goal.said,
        "rivals": rivals,
        "judged": int(setup.judge is not None),
    }
    kept = None if best is None or setup.judge is None else best[1:]
    return Judged(xr.Dataset(data, coords, attrs), failed, kept)


def score(goal: Goal, hit: Any, kinds: Sequence[str]) -> float:
    """How good a change is: the share of what was reached times that of other things that stayed.

    Args:
        goal: what it is for.
        hit: [prompt, seed].
        kinds: of the prompts.
    """
    own, others = (np.array([k == kind for k in kinds]) for kind in ("efficacy", "specificity"))
    reached = float(np.mean(hit[own]))
    reached = 1 - abs(2 * reached - 1) if goal.kind == "balance" else reached
    return reached * (float(np.mean(hit[others])) if others.any() else 1.0)


def _outright(
    setup: Setup, tried: Sequence[Tried], painter: Painter, before: dict[str, Tensor]
) -> Tensor | None:
    """Pictures of what is wanted, asked for in words; of other things as before. No change can do better.

    Of a balance, each attribute for every other seed.
    """
    goal = setup.goal
    wanted = goal.asked if goal.kind == "balance" else (goal.meant,)
    texts = {(t.template, w): goal.written(t.template, w) for t in tried if t.kind != "specificity"
             for w in wanted}  # fmt: skip
    if not all(texts.values()):
        return None  # the prompt is the word alone: without it nothing is left to ask for
    made = {**before, **painter([t for t in dict.fromkeys(texts.values()) if t not in before])}
    rows = []
    for t in tried:
        if t.kind == "specificity":
            rows.append(before[goal.written(t.template, t.word)])
            continue
        own = [made[texts[t.template, w]] for w in wanted]
        rows.append(torch.stack([own[i % len(own)][i] for i in range(len(setup.seeds))]))
    return torch.stack(rows)


@dataclass(frozen=True, eq=False)
class _Looking:
    """Who looks at the pictures, and what those before were."""

    setup: Setup
    tried: Sequence[Tried]
    before: Tensor

    def at(self, images: Tensor) -> dict[str, Any]:
        """What is measured of the pictures [prompt, seed, 3, height, width] under one change."""
        seen = [self._seen(t, x) for t, x in zip(self.tried, images, strict=True)]
        colour = [colour_difference(b, a) for b, a in zip(self.before, images, strict=True)]
        own = [x for t, x in zip(self.tried, images, strict=True) if t.kind == "efficacy"]
        return {
            "hit": np.stack([hit for hit, _ in seen]),
            "fit": np.stack([fit for _, fit in seen]),
            "moved": (images - self.before).abs().mean((-3, -2, -1)).double().numpy(),
            "colour": torch.stack(colour).double().numpy(),
            "pictures": to_array(torch.cat(own)).values,
        }

    def _seen(self, t: Tried, images: Tensor) -> tuple[Any, Any]:
        """Whether each picture shows what is wanted, and how well it fits the text for it."""
        judge, goal = self.setup.judge, self.setup.goal
        none = np.full(len(images), np.nan)
        if judge is None:
            return none, none
        rivals, wanted = _compared(goal, t, tuple(self.setup.wording.neighbourhood))
        said = fits(judge, images, [goal.written(t.template, r) for r in rivals])
        known = ~said.isnan().any(1)
        hit = torch.tensor(wanted)[said.nan_to_num().argmax(1)].double().where(known, torch.nan)
        text = goal.written(t.template, t.word if t.kind == "specificity" else _shown(goal))
        fit = fits(judge, images, [text])[:, 0] if text else torch.full((len(images),), torch.nan)
        return hit.numpy(), fit.double().numpy()


def _compared(goal: Goal, t: Tried, peers: Sequence[str]) -> tuple[list[str], list[bool]]:
    """What a picture of a prompt is compared with, and which of these it should show."""
    if t.kind == "specificity":
        rivals = list(dict.fromkeys([t.word, goal.about, *filter(None, [goal.meant]), *peers]))
        return rivals, [r == t.word for r in rivals]
    rivals = list(goal.rivals(peers))
    return rivals, goal.wanted(rivals)


def _shown(goal: Goal) -> str:
    """The words whose text a picture should fit; of a balance the word itself."""
    return goal.about if goal.kind == "balance" else goal.meant
