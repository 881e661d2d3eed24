"""The errors that a classifier compares: of a picture, draw by draw, under the prompts still in question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from ...models.base import Model, Prompt
from ...models.errors import NotFoundError, UsageError
from ...models.progress import Progress
from ...models.store.fingerprint import tensor_hash
from ...models.suggest import near
from ...probes.denoising_errors import Strata
from ...probes.denoising_errors.conditions import latents_of, read_conditions
from ...probes.denoising_errors.one_picture import OnePicture, Plan
from ...probes.trace import Trace
from ..information.mutual import check_reads
from .pruning import survivors

APART = 2**64
"""Between the seeds of prompts with noise of their own: more than there are pictures."""


@dataclass(frozen=True, eq=False)
class Rows:
    """A model under some prompts.

    Args:
        plan: levels and draws, as a bank has them.
        prompts: what the network reads, no two of them alike.
        shared: whether the prompts share their noise.
    """

    plan: Plan
    prompts: Sequence[Prompt]
    shared: bool

    @classmethod
    def of(
        cls,
        model: Model,
        prompts: Sequence[str],
        how: Strata,
        *,
        shared: bool = True,
        batch: int,
        store: str | Path | None,
    ) -> Rows:
        """Read the prompts, as ``read_prompts`` does."""
        read = read_prompts(model, prompts)
        return cls(Plan.of(model, how, batch=batch, store=store), read, shared)

    def errors(
        self, clean: Tensor, index: int, show: Progress, weight: Tensor, error_rate: float | None
    ) -> Float[Tensor, "draw level prompt"]:
        """Squared errors of one picture; NaN where a prompt was out of question, or nothing was in question.

        Args:
            clean: its latents.
            index: its number.
            show: told of each call.
            weight: of each level, for what is in question.
            error_rate: of dropping the prompt that all draws would choose; None drops none.
        """
        draws, n = self.plan.how.draws, len(self.prompts)
        found = torch.full((draws, len(self.plan.steps), n), torch.nan, dtype=torch.float64)
        live = list(range(n))
        for draw in range(draws):
            found[draw][:, live] = self._draw(clean, index, draw, live, show)
            if error_rate is not None and 2 <= draw + 1 < draws:
                each = error_rate / ((n - 1) * (draws - 2))  # of one comparison: rivals times looks
                left = survivors(weight[:, None] * found[: draw + 1, :, live], each)
                live = [j for j, stays in zip(live, left.tolist(), strict=True) if stays]
            if len(live) == 1:
                break
        return found

    def _draw(
        self, clean: Tensor, index: int, draw: int, live: Sequence[int], show: Progress
    ) -> Float[Tensor, "level prompt"]:
        """One noise at each level; each prompt its own, if they share none."""
        if self.shared:
            return _diagonal(OnePicture(self.plan, clean, index, [self.prompts[j] for j in live]), draw, show)
        alone = []
        for j in live:
            how = replace(self.plan.how, seed=self.plan.how.seed + APART * (j + 1))
            plan = replace(self.plan, how=how)
            alone.append(_diagonal(OnePicture(plan, clean, index, [self.prompts[j]]), draw, show))
        return torch.cat(alone, -1)


def _diagonal(picture: OnePicture, draw: int, show: Progress) -> Float[Tensor, "level prompt"]:
    return picture.one(draw, show)[0].diagonal(dim1=-2, dim2=-1).double()


def read_prompts(model: Model, prompts: Sequence[str]) -> list[Prompt]:
    """Return what the network reads.

    Raises:
        ValueError: for a model without text, fewer than two prompts, and two that are read alike.
    """
    check_reads(model)
    _check_written(prompts)
    with torch.no_grad():
        read = read_conditions(model, {p: p for p in prompts}, 1)[0]
    _check_read(model, read)
    return read


def clean_latents(model: Model, images: Tensor | Trace) -> Float[Tensor, "picture ..."]:
    """Return the clean latents of pictures, or those at the end of a run, which may be of no sample.

    Raises:
        TypeError: for pictures that are no tensor of floating-point numbers.
        ValueError: for pictures of another shape or range, latents of another model, and none at all.
    """
    with torch.no_grad():
        clean = latents_of(model, images)
    if not len(clean):
        raise UsageError("there are no pictures; give at least one")
    return clean


def label_positions(labels: Sequence[str], prompts: Sequence[str], images: int) -> list[int]:
    """Return where each picture's label stands among the prompts.

    Raises:
        ValueError: for another number of labels than of pictures.
        LookupError: for a label that is none of the prompts.
    """
    if len(labels) != images:
        raise UsageError(f"there are {len(labels)} labels for {images} pictures; give one for each")
    for label in labels:
        if label not in prompts:
            raise NotFoundError(f"the label {label!r} is none of the prompts; {near(label, prompts)}")
    return [list(prompts).index(label) for label in labels]


def _check_written(prompts: Sequence[str]) -> None:
    if len(prompts) < 2:
        raise UsageError(f"prompts are {list(prompts)}; to choose takes at least two")
    if twice := next((p for i, p in enumerate(prompts) if p in prompts[:i]), None):
        raise UsageError(f"prompts hold {twice!r} twice, which would always tie; give each once")


def _check_read(model: Model, prompts: Sequence[Prompt]) -> None:
    """Raise UsageError for two texts that the network cannot tell apart."""
    known: dict[tuple[object, ...], str] = {}
    for prompt in prompts:
        read = tuple(tensor_hash(t) for t in (prompt.embeds, prompt.pooled, prompt.mask) if t is not None)
        told = read if prompt.embeds.numel() else prompt.tokens  # some read the text itself
        if told in known:
            raise UsageError(
                f"{model.name} reads {prompt.text!r} as it reads {known[told]!r}, to the bit, so they would "
                "always tie; leave one out"
            )
        known[told] = prompt.text
