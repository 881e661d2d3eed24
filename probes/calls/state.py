"""What is known of a call while it goes on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from torch import Tensor

from ...models.base import Model, Prompt
from ...models.places.account import AccountError
from ...models.run.context import TEXT, Branch, Call
from ...models.run.levels import Step
from .pipelines import Arguments

Rows: TypeAlias = Mapping[Branch, slice]
"""Where each guidance branch lies in a batch."""


@dataclass(frozen=True)
class TextCall(Call):
    """A call of one text encoder alone; inside a pipeline each is a call of its own."""

    encoder: str = TEXT

    def reaches(self, component: str) -> bool:
        """Return whether a component runs in this call."""
        return component == self.encoder


@dataclass(eq=False)
class Running:
    """What is known of one call of the pipeline, or of the user's own loop, while it goes on.

    Args:
        arguments: of the call, defaults included; None in a loop of the user's own.
        index: of the step; -1 before the first.
        place: of the step among the scheduler's timesteps.
        first: place of the first step.
        step: the step.
        rows: of the last call of the denoiser.
        latents: after the last step.
        prompts: of each row, by branch, where known.
        read: the embeddings that ``encode_prompt`` returned, by branch.
        met: calls of each text encoder whose tokens were those of several branches.
    """

    arguments: Arguments | None = None
    index: int = -1
    place: int | None = None
    first: int = 0
    step: Step | None = None
    rows: Rows = field(default_factory=dict)
    latents: Tensor | None = None
    prompts: Mapping[Branch, Sequence[Prompt]] = field(default_factory=dict)
    read: dict[Branch, Tensor] = field(default_factory=dict)
    met: Counter[str] = field(default_factory=Counter)

    def keep_read(self, given: Arguments, embeds: Tensor) -> None:
        """Keep what ``encode_prompt`` made of arguments: those of the prompt, or of the negative prompt.

        Where both are the same object, the prompt is encoded first.
        """
        whole = self.arguments or {}
        names = {"cond": ("prompt", "prompt_embeds"), "uncond": ("negative_prompt", "negative_prompt_embeds")}
        pair = (given.get("prompt"), given.get("prompt_embeds"))
        found = [
            b for b, own in names.items() if all(whole.get(n) is x for n, x in zip(own, pair, strict=True))
        ]
        for branch in [b for b in found if b not in self.read][:1]:
            self.read[branch] = embeds


def checked(rows: Rows, n: int) -> dict[Branch, slice]:
    """Return rows with their ends written out.

    Raises:
        RuntimeError: an AccountError unless they share out all rows of the batch evenly.
    """
    found = {b: slice(*r.indices(n)[:2]) for b, r in rows.items()}
    covered = sorted(i for r in found.values() for i in range(r.start, r.stop))
    if covered != list(range(n)) or len({r.stop - r.start for r in found.values()}) != 1:
        raise AccountError(f"the rows {dict(rows)} do not share out a batch of {n} evenly")
    return found


def sized(model: Model, arguments: Arguments) -> Model:
    """Return the model in the size of the call, as pipelines round it."""
    given, unit = [arguments.get(n) for n in ("height", "width")], model.size_unit
    if None in given:
        return model
    height, width = (int(side or 0) // unit * unit for side in given)
    return model.sized((height, width))
