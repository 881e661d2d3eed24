"""Textual inversion (Gal et al. 2022) of an edited model, as Pham et al. (2024) attack erasures.

Embeddings of one token or several are fitted by Adam on the edited model to a few pictures of the concept;
noise and time are drawn anew at each step, so that what is found is a word and no key to one run. The start
is the word itself, or that of what is meant instead. Controls: the same fit on the clean model, which never
lost the concept, from the other word; and a word that it never learnt, if there are pictures of one: where
that is found too, the attack teaches and does not reveal.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ...models.base import Model, Prompt
from ...models.site import Site
from ...probes.intervene import intervening
from ...probes.text_states import site_states
from ..mediation.corruption import EMBEDDINGS, CorruptedText
from .fitting import denoising_loss, drawn, looked_at
from .world import WORK, Reading, Trial, World


def fitted(world: World) -> Iterator[Trial]:
    """Fit tokens on the edited model, then the controls; a trial for each number of steps looked at."""
    pictures = world.targets
    budget, first = world.budget, world.budget.tokens[0]
    plans: list[tuple[str, int, str, Tensor, str | None]] = [
        ("edited", n, start, pictures, None) for n in budget.tokens for start in budget.starts
    ]
    plans.append(("clean", first, "instead", pictures, None))
    plans += [("never", first, "instead", images, word) for word, images in world.never.items()]
    for who, n, start, images, sought in plans:
        word = world.about if start == "about" else world.instead
        with world.acting(who):
            found = fit_tokens(world, images, word, n)
        name = f"{n} token{'s' * (n > 1)} from “{word}”"
        for steps, painted in found.items():
            rows = steps * world.budget.batch
            yield Trial("embedding", name, painted, who, steps, rows, word=sought)


def fit_tokens(world: World, images: Tensor, word: str, n: int) -> dict[int, Tensor]:
    """Fit the embeddings of a word, written n times, to pictures; what is painted after each mark of steps.

    The model is taken as it is now. A word of several tokens has all of them fitted.
    """
    model, budget = world.model, world.budget
    latents, levels = world.latents(images), model.levels
    text, at = places(model, world.template, word, n)
    added = _nothing(model, text, at)

    def loss(generator: torch.Generator) -> Tensor:
        some = drawn(latents, budget.batch, generator)
        world.meter(WORK * budget.batch)
        return denoising_loss(model, some, read(model, text, at, added), levels, generator)

    def look() -> Tensor:
        negative = world.read("").negative
        return world.paint(Reading(read(model, text, at, added), negative))

    return looked_at(added, loss, look, budget.steps, rate=budget.rate)


def places(model: Model, template: str, word: str, n: int) -> tuple[str, dict[str, list[int]]]:
    """Return a prompt with a word n times in its slot, and the tokens of these in each text encoder."""
    written, first = " ".join([word] * n), template.index("{}")
    text = template.replace("{}", written)
    with torch.no_grad():
        prompt = model.encode([text])[0]
    return text, {e: prompt.of(e).at(first, first + len(written)) for e in model.text_encoders}


def read(model: Model, text: str, at: dict[str, list[int]], added: dict[str, Tensor]) -> Prompt:
    """Encode a text with something added to the embeddings of some of its tokens; differentiable."""
    moved = CorruptedText(text, {e: (tuple(tokens), added[e]) for e, tokens in at.items()})
    with intervening(model, *moved.interventions()):
        return model.encode([text])[0]


def count(world: World) -> int:
    """Rows that it takes."""
    budget = world.budget
    fits = len(budget.tokens) * len(budget.starts) + 1 + len(world.never)
    return WORK * budget.rows(fits) + fits * len(budget.steps) * world.painting


def _nothing(model: Model, text: str, at: dict[str, list[int]]) -> dict[str, Tensor]:
    """Zeros to begin with, [token, channel] for each text encoder."""
    found = {}
    for encoder, tokens in at.items():
        site = Site(f"{encoder}/{EMBEDDINGS}")
        width = site_states(model, [text], [site])[site].shape[-1]
        found[encoder] = torch.zeros(len(tokens), width).requires_grad_()
    return found


def can_fit(model: Model) -> bool:
    """Return whether each text encoder has embeddings of tokens, which can be fitted."""
    known = {str(site) for site in model.places()}
    return bool(model.text_encoders) and all(f"{e}/{EMBEDDINGS}" in known for e in model.text_encoders)
