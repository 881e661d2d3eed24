"""A vector that is added at one site of the denoiser, in a window of noise levels, if the prompt says a word.

No weight is changed: the plant is an intervention. The vector is the mean difference, over positions, steps
and seeds, of what passes through the site with two prompts (contrastive steering, Rimsky et al. 2024), times
a factor that is large enough to be seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...models.base import Model
from ...models.run.context import CallContext, When
from ...models.site import Site
from ...probes.direction import Direction
from ...probes.intervene import Intervention, Spec
from ...probes.trace import trace
from .places import GUIDANCE, STEPS, Planted, Question, Truth, lasting


@dataclass(frozen=True, eq=False)
class PlantedDirection(Planted):
    """A vector at one site, in one window.

    Args:
        direction: the vector, as it is added.
    """

    direction: Direction

    @contextmanager
    def acting(self, model: Model) -> Iterator[None]:
        """Add the vector wherever the word is read, in the window."""
        (question,) = self.questions
        with lasting(model, [listening(model, self.direction, question.subject, question.truth)]):
            yield

    def stored(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        """The vector."""
        return {"vector": self.direction.vector.half()}, {"site": str(self.direction.site)}

    @classmethod
    def restored(
        cls,
        model: str,
        base: str,
        questions: tuple[Question, ...],
        tensors: Mapping[str, Tensor],
        how: Mapping[str, Any],
    ) -> PlantedDirection:
        """As ``stored`` left it."""
        return cls(model, base, questions, Direction(how["site"], tensors["vector"].float()))


def listening(model: Model, direction: Direction, word: str, truth: Truth) -> Intervention:
    """Return what adds a vector in a window of noise levels, to the rows whose prompts say a word."""
    add = direction.at(model).steer(1.0)

    def fn(x: Tensor, context: CallContext) -> Tensor | None:
        told = [word in p.text.split() for p in context.prompts]
        new = add.fn(x, context) if any(told) and truth.acts_at(context.step) else None
        if new is None or all(told):
            return new
        return torch.where(torch.tensor(told).to(x.device).view(-1, *[1] * (x.ndim - 1)), new, x)

    window = None if truth.snr is None else list(truth.snr)
    spec = Spec("planted direction", {"vector": direction.vector, "word": word, "snr": window})
    return Intervention(add.site, fn, spec=spec)


def contrast(
    model: Model, site: Site, steps: Sequence[int], prompts: tuple[str, str], seeds: Sequence[int]
) -> Direction:
    """Return the mean difference at a site between two prompts: the second less the first."""
    each = [text for text in prompts for _ in seeds]
    run = trace(
        model, each, seeds=[*seeds, *seeds], steps=STEPS, guidance=GUIDANCE, sites=[site], when=When(steps)
    )
    values = run[site]  # [step, sample, ...]
    channel = model.layout(site).axes.index("channel") + 2
    over = [i for i in range(values.ndim) if i not in (1, channel)]
    first, second = values.mean(over).chunk(2)
    return Direction(site, (second - first).mean(0))
