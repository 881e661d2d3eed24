"""Ask the oracle: can the unedited model paint the source and the target at all, asked outright?"""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence

import torch
import xarray as xr
from torch import Tensor

from ...analysis.judging import fits
from ...models.images import to_array
from ...models.progress import Progress, part
from ...probes.sweep.sweeping import SweepRun, sweep
from ...report.asked import cannot_paint
from ..case import Setup
from ..pieces import in_pieces
from ..wording import fit, same

PICTURES = 4
"""How many pictures of each word, at most."""


def oracle(setup: Setup, progress: Progress) -> xr.Dataset:
    """A few pictures of the source and of the target, and whether the judge sees in them what was asked for.

    Returns:
        ``pictures`` [picture, y, x, channel], word by word; ``shown`` [word, seed]: 1 where the picture fits
        its word best of all that the model's world has of the kind. NaN without a judge, and for a word that
        the judge's encoder knows in pieces only where it is the model's own. Attributes, in JSON: ``pieces``
        {word: {encoder: {single word: pieces}}}, and ``near``: words that it can paint, where one it cannot.
    """
    words, seeds = list(setup.goal.asked), setup.seeds[:PICTURES]
    images = _paint(setup, words, seeds, part(progress, 0, 2, 3))
    own = setup.case.judge is not None  # reads words with a tokenizer of its own
    pieces = {word: in_pieces(setup.model, _asking(setup, word), word) for word in words}
    shown = torch.stack(
        [
            torch.full((len(seeds),), torch.nan)
            if pieces[word] and not own
            else _shown(setup, word, pictures)
            for word, pictures in zip(words, images, strict=True)
        ]
    )
    data = xr.Dataset(
        {"shown": (("word", "seed"), shown.double().numpy())}, {"word": words, "seed": list(seeds)}
    )
    data["pictures"] = to_array(images.flatten(0, 1)).rename(sample="picture")
    judged = setup.judge is not None and bool(setup.wording.peers)
    about = {"judged": int(judged), "pieces": json.dumps({w: p for w, p in pieces.items() if p})}
    data = data.assign_attrs(about)
    others = dict(zip(words, images.flip(0), strict=True))
    known = {setup.goal.about, *setup.goal.values}  # of a word with an attribute nothing is near
    near = {
        w: _near(setup, w, others[w], part(progress, 2, 1, 3)) if w in known else []
        for w in cannot_paint(data)
    }
    progress(3, 3, "asked")
    return data.assign_attrs(near=json.dumps(near))


def _asking(setup: Setup, word: str) -> str:
    return fit(setup.wording.efficacy[0], word).replace("{}", word)


def _paint(setup: Setup, words: Sequence[str], seeds: Sequence[int], progress: Progress) -> Tensor:
    """Pictures of words in the edited wording, [word, seed, 3, height, width]."""
    runs = [SweepRun(_asking(setup, word), seed) for word in words for seed in seeds]
    settings = {k: v for k, v in setup.run.items() if k != "seeds"}
    latents = sweep(setup.model, runs, progress=progress, **settings).latents
    with torch.no_grad():
        images = setup.model.decode(latents).cpu()
    return images.view(len(words), len(seeds), *images.shape[1:])


def _shown(setup: Setup, word: str, pictures: Tensor) -> Tensor:
    """Whether each picture fits a word best, [seed]; NaN without a judge."""
    if setup.judge is None or not setup.wording.peers:
        return torch.full((len(pictures),), torch.nan)
    goal = setup.goal
    named = word != goal.about and goal.kind in {"balance", "steer"}  # an attribute: beside its like
    others = (
        goal.rivals(()) if named else (*goal.asked[: 1 if goal.kind == "steer" else 2], *setup.wording.peers)
    )
    names = list(dict.fromkeys([word, *others]))
    said = fits(setup.judge, pictures, [_asking(setup, name) for name in names])
    return (said.argmax(1) == 0).float()


def _near(setup: Setup, word: str, other: Tensor, progress: Progress) -> list[str]:
    """Words of the kind that lie near one and that the model paints: each was tried with one seed.

    First those that are written alike, then those that look like pictures of the other word, [seed, ...].
    """
    taken = {part for word in setup.goal.asked for part in same(word)}
    names = [name for name in setup.wording.peers if not taken >= {*same(name)}]
    if setup.judge is None or not names:
        return []
    alike = [name for name in names if {*same(name)} & {*same(word)}]
    alike += difflib.get_close_matches(word, names, 3, cutoff=0.6)
    said = fits(setup.judge, other, [_asking(setup, name) for name in names]).mean(0)
    tried = list(dict.fromkeys([*alike, *(names[int(i)] for i in said.argsort(descending=True))]))[:6]
    images = _paint(setup, tried, setup.seeds[:1], progress)
    painted = zip(tried, images, strict=True)
    return [name for name, pictures in painted if bool(_shown(setup, name, pictures).all())]
