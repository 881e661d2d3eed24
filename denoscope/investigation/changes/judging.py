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
from ...analysis.judging import fits
from ...models.errors import DenoscopeError
from ...models.images import to_array
from ...models.progress import Progress
from ...report.changes import NOTHING, OUTRIGHT
from ..case import Setup
from ..goal import Goal
from .brush import Brush, Tried
from .change import Change


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
        show; ``moved`` and ``colour``: how far it is from the picture before; ``depth`` [change, asked,
        seed]: of each edited wording, as in ``insisting.depth``; ``pictures`` [change, picture, y, x,
        channel] of the edited wording. The first change is nothing, the second asks outright.
    """
    brush = Brush.of(setup, (len(changes) + 2), progress)
    looking = _Looking(setup, brush.asked.tried, brush.before)
    names, found, failed, best = [NOTHING], [looking.at(brush.before, brush.deep())], dict[str, str](), None
    kinds = [t.kind for t in brush.asked.tried]
    outright = brush.outright()
    if outright is not None:
        names.append(OUTRIGHT)
        found.append(looking.at(outright, brush.deep(outright=True)))
    for change in changes:
        try:
            with change.applied(setup.model):
                after, deep = brush.painted(), brush.deep()
        except DenoscopeError as error:
            failed[change.name] = " ".join(str(error).split())
            continue
        names.append(change.name)
        found.append(looking.at(after, deep))
        worth = standing(setup.goal, found[-1], kinds)
        if change.edit and outright is not None and (best is None or worth > best[0]):
            best = worth, change.name, {"before": brush.before, "after": after, "oracle": outright}
    progress(brush.painter.total, brush.painter.total, "judged")
    kept = None if best is None or setup.judge is None else (best[1], _evaluated(best[2], kinds))
    return Judged(_labelled(setup, brush, names, found), failed, kept)


def _evaluated(pictures: Mapping[str, Tensor], kinds: Sequence[str]) -> dict[str, Tensor]:
    """The pictures that an evaluation of the edit is of: those from noise."""
    own = [i for i, kind in enumerate(kinds) if kind != "robustness"]
    return {state: x[own] for state, x in pictures.items()}


def _labelled(setup: Setup, brush: Brush, names: list[str], found: Sequence[Any]) -> xr.Dataset:
    """All that was measured, as one data set."""
    dims = {"hit": ("prompt", "seed"), "fit": ("prompt", "seed"), "moved": ("prompt", "seed"),
            "colour": ("prompt", "seed"), "depth": ("asked", "seed"),
            "pictures": ("picture", "y", "x", "channel")}  # fmt: skip
    data: dict[str, Any] = {k: (("change", *d), np.stack([f[k] for f in found])) for k, d in dims.items()}
    coords: dict[str, Any] = {
        "change": names,
        "seed": setup.seeds,
        "kind": ("prompt", [t.kind for t in brush.asked.tried]),
        "text": ("prompt", brush.asked.texts),
    }
    attrs = {
        "goal": setup.goal.kind,
        "goal_said": setup.goal.said,
        "rivals": list(setup.goal.rivals(tuple(setup.wording.neighbourhood))),
        "judged": int(setup.judge is not None),
    }
    return xr.Dataset(data, coords, attrs)


def standing(goal: Goal, seen: Mapping[str, Any], kinds: Sequence[str]) -> tuple[float, float, float]:
    """How good a change is, as ``report.changes.Changes.best`` has it: the larger, the better.

    Args:
        goal: what it is for.
        seen: what ``_Looking.at`` says.
        kinds: of the prompts.

    Returns:
        The share of what was reached times that of other things that stayed; of equals the deeper one stands
        first, then the one whose pictures fit the text better. What nobody measured counts as nothing.
    """
    own, others = (np.array([k == kind for k in kinds]) for kind in ("efficacy", "specificity"))
    reached = float(np.mean(seen["hit"][own]))
    reached = 1 - abs(2 * reached - 1) if goal.kind == "balance" else reached
    kept = float(np.mean(seen["hit"][others])) if others.any() else 1.0
    return reached * kept, _mean(seen["depth"]), _mean(seen["fit"][own])


def _mean(values: Any) -> float:
    """The mean; 0 where nobody could say."""
    return float(np.nan_to_num(np.mean(values))) if values.size else 0.0


@dataclass(frozen=True, eq=False)
class _Looking:
    """Who looks at the pictures, and what those before were."""

    setup: Setup
    tried: Sequence[Tried]
    before: Tensor

    def at(self, images: Tensor, deep: Any) -> dict[str, Any]:
        """What is measured of the pictures [prompt, seed, 3, height, width] under one change."""
        seen = [self._seen(t, x) for t, x in zip(self.tried, images, strict=True)]
        colour = [colour_difference(b, a) for b, a in zip(self.before, images, strict=True)]
        own = [x for t, x in zip(self.tried, images, strict=True) if t.kind == "efficacy"]
        return {
            "hit": np.stack([hit for hit, _ in seen]),
            "fit": np.stack([fit for _, fit in seen]),
            "moved": (images - self.before).abs().mean((-3, -2, -1)).double().numpy(),
            "colour": torch.stack(colour).double().numpy(),
            "depth": deep,
            "pictures": to_array(torch.cat(own)).values,
        }

    def _seen(self, t: Tried, images: Tensor) -> tuple[Any, Any]:
        """Whether each picture shows what is wanted, and how well it fits the text for it."""
        judge, goal = self.setup.judge, self.setup.goal
        none = np.full(len(images), np.nan)
        if judge is None:
            return none, none
        rivals, wanted = _compared(goal, t, tuple(self.setup.wording.neighbourhood))
        text = goal.written(t.template, t.word if t.kind == "specificity" else _shown(goal))
        texts = [goal.written(t.template, r) for r in rivals]
        if text and text not in texts:
            texts.append(text)
        said = fits(judge, images, texts)
        among = said[:, : len(rivals)]
        fit = said[:, texts.index(text)] if text else torch.full((len(images),), torch.nan)
        known = ~among.isnan().any(1)
        hit = torch.tensor(wanted)[among.nan_to_num().argmax(1)].double().where(known, torch.nan)
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
