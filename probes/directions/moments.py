"""Noised pictures of texts, and what is asked for of them: what directions and sliders are learned from.

With f the prediction, x_t on the way to a picture of a neutral text, and s of either sign, it is

    y = f(x_t | neutral) + s (f(x_t | positive) - f(x_t | negative))

(Concept Sliders, Gandikota et al. 2024, eq. 6, after LECO; Baumann et al. 2025, section 3.3). Where the
published codes sample a run for each x_t, and ask for y anew, whole runs are kept here with their y and drawn
from: the gradient has the same expectation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...models.base import Model, Prompt
from ...models.errors import UsageError
from ...models.run.levels import Step
from ...models.run.sampling import SamplingOptions

Space = Literal["x0", "eps"]


def check_pairs(
    positive: Sequence[str], negative: Sequence[str], neutral: Sequence[str] | None = None
) -> None:
    """Raise ValueError for texts that are no pairs: of one class alone, or of different number."""
    for name, texts in (("positive", positive), ("negative", negative)):
        if isinstance(texts, str) or not texts:
            raise UsageError(f"{name} is {texts!r}; a direction is between two classes: give a list of texts")
    n = {len(positive), len(negative), *(() if neutral is None else (len(neutral),))}
    if len(n) > 1:
        raise UsageError(
            f"{len(positive)} positive, {len(negative)} negative"
            + ("" if neutral is None else f", {len(neutral)} neutral")
            + " texts; they are pairs: give one for each"
        )
    if list(positive) == list(negative):
        raise UsageError(f"positive and negative are the same texts, {positive[0]!r} ..., so nothing differs")


@dataclass(frozen=True)
class Examples:
    """Texts that belong together, one of each a pair."""

    neutral: Sequence[str]
    positive: Sequence[str]
    negative: Sequence[str]

    @property
    def texts(self) -> list[str]:
        """All of them."""
        return [*self.neutral, *self.positive, *self.negative]


@dataclass(frozen=True, eq=False)
class Moments:
    """Noised pictures of all runs, and what is said of them.

    Args:
        x: [moment, ...].
        steps: of each.
        plain: f of the neutral text, [moment, ...].
        apart: f of the positive less that of the negative text, [moment, ...].
        pair: whose each is.
    """

    x: Tensor
    steps: tuple[Step, ...]
    plain: Tensor
    apart: Tensor
    pair: tuple[int, ...]

    def wanted(self, some: Int[Tensor, " row"], s: Float[Tensor, " row"]) -> Tensor:
        """Return y of some moments, each with its own s."""
        shape = (-1, *[1] * (self.x.ndim - 1))
        return self.plain[some] + s.to(self.apart).view(shape) * self.apart[some]


@torch.no_grad()
def moments(
    model: Model,
    examples: Examples,
    read: Mapping[str, Prompt],
    *,
    seeds: Sequence[int],
    space: Space,
    steps: int,
    guidance: float | None,
) -> Moments:
    """Paint the neutral texts, and ask at each step what the three texts of a pair predict.

    Args:
        model: an opened model.
        examples: the texts.
        read: what the denoiser reads of each.
        seeds: each with each neutral text.
        space: what f is: "x0", the clean latents, or "eps", the noise.
        steps: of a run.
        guidance: of a run; None is the model's default.
    """
    pairs = [i for i in range(len(examples.neutral)) for _ in seeds]
    texts = [read[examples.neutral[i]] for i in pairs]
    settings: SamplingOptions = {"steps": steps, "guidance": guidance}
    xs, at, plain, apart = [], list[Step](), [], []
    for state in model.sample(texts, seeds=[*seeds] * len(examples.neutral), **settings):
        x, now = state.model_input, [state.step] * len(state.model_input)
        ask = [[read[of[i]] for i in pairs] for of in (examples.positive, examples.negative)]
        up, down = (predicted(model, space, x, now, prompts) for prompts in ask)
        xs.append(x)
        plain.append(predicted(model, space, x, now, texts))
        apart.append(up - down)
        at += now
    x, f, d = (torch.cat(parts) for parts in (xs, plain, apart))
    return Moments(x, tuple(at), f, d, tuple(pairs) * (len(at) // len(pairs)))


def predicted(
    model: Model, space: Space, x: Tensor, steps: Sequence[Step], prompts: Sequence[Prompt]
) -> Tensor:
    """Return what is predicted, as clean latents or as noise."""
    turned = model.to_x0 if space == "x0" else model.to_eps
    return turned(x, model.denoise(x, steps, prompts), steps)
