"""What does each word tell, and which words tell the same?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import xarray as xr
from torch import Tensor

from ...analysis.information.each_word import word_information
from ...analysis.information.words import Word, chosen_words, content_words
from ...models.errors import DenoscopeError, UsageError
from ...models.progress import Progress, part
from ...models.text.prompt import occurrence
from ...probes.sweep.sweeping import SweepRun, sweep
from ..case import Setup
from ..changes.ground import APART

PICTURES = 2
LEVELS = 12
MOST_WORDS = 5
"""The word, and so many others: pairs grow with the square."""
SKIPPED = "skipped"
"""The attribute that says why a stage found nothing."""


def information(setup: Setup, progress: Progress) -> xr.Dataset:
    """What words of the prompt tell of pictures, and pairs of them taken apart; see ``word_information``.

    For a balance the prompts that name each attribute, and the pair of attribute and word. Where it cannot
    be said, an empty dataset whose attribute ``skipped`` says why.
    """
    goal, prompt = setup.goal, setup.case.prompt
    template = setup.wording.efficacy[0]
    try:
        if goal.kind != "balance":
            return _told(setup, prompt, words_of(setup, prompt), progress)
        found = []
        for i, (value, phrase) in enumerate(zip(goal.values, goal.asked, strict=True)):
            text = goal.written(template, phrase)
            own = part(progress, i, 1, 2)
            found.append(_told(setup, text, chosen_words(text, [value, goal.about]), own))
        return xr.concat([x.drop_dims("word") for x in found], "pair", combine_attrs="drop_conflicts")
    except DenoscopeError as error:
        return xr.Dataset(attrs={SKIPPED: " ".join(str(error).split())})


def words_of(setup: Setup, prompt: str) -> list[Word]:
    """The word that the case is about, and the first other content words that the model knows.

    Raises:
        ValueError: if there is no other.
    """
    with torch.no_grad():
        [read] = setup.model.encode([prompt])
    about = occurrence(setup.case.about)[0]
    others = [w for w in content_words(prompt) if read.reads(w) and w.lower() not in about.lower().split()]
    if not others:
        raise UsageError(f"{prompt!r} has no other word that could tell the same as {about!r}")
    return chosen_words(prompt, [setup.case.about, *others[: MOST_WORDS - 1]])


def _told(setup: Setup, prompt: str, words: Sequence[Word], progress: Progress) -> xr.Dataset:
    found = word_information(
        setup.model, _pictures(setup, prompt), prompt, words, levels=LEVELS, progress=progress
    )
    return found.drop_vars([name for name in ("map", "pair_map") if name in found])


@torch.no_grad()
def _pictures(setup: Setup, prompt: str) -> Tensor:
    settings = {k: v for k, v in setup.run.items() if k != "seeds"}
    swept = sweep(setup.model, [SweepRun(prompt, APART + i) for i in range(PICTURES)], **settings)
    return setup.model.decode(swept.latents).clamp(0, 1)
