"""Sliders: a change of low rank that moves an attribute, as far as its strength says, learned in a minute.

Gandikota, Materzyńska, Zhou, Torralba, Bau: Concept Sliders: LoRA Adaptors for Precise Control in Diffusion
Models, ECCV 2024 (arXiv:2311.12092), eq. 6 to 8. With f the prediction, x_t on the way to a picture of a
neutral text, and W + s B A in place of each of some weights W:

    loss = MSE(f_s(x_t | neutral), f(x_t | neutral) + s (f(x_t | positive) - f(x_t | negative)))

The authors train s = 1 alone and hope for the rest; here s is drawn from both signs at each step, so that
0.5 and -1 mean what they say. They sample each x_t anew with the slider on; here whole runs of the unedited
model are kept and drawn from. Their guidance scale of 4 on the difference is ``most``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...models.arguments import check_fields, checked
from ...models.base import Model
from ...models.errors import StateError, UsageError
from ...models.fit import fit
from ...models.progress import Progress
from ...models.site import Site
from ...probes.directions.moments import Examples, Moments, Space, check_pairs, moments
from ...probes.text_states import encoded
from ..edit import Edit
from .factors import Asked, change_of, linear_weights, moved, started


@dataclass(frozen=True)
class SliderFit:
    """How a slider is learned. Paper: rank 4, rate 2e-4, 1,000 steps, one picture and one strength a step.

    Args:
        rank: of the change of each weight.
        steps: of AdamW.
        rate: its learning rate.
        draws: noised pictures at each step.
        most: the largest strength that is learned; those of a step are drawn up to it, of either sign.
        space: in which the error is measured: "eps", as published, or "x0".
        seeds: of the runs, each with each neutral text.
        sampling_steps: of a run.
        guidance: of a run; None is the model's default.
        seed: of what is drawn.

    Raises:
        ValueError: for numbers that make no fit.
    """

    rank: int = 4
    steps: int = 150
    rate: float = 5e-3
    draws: int = 4
    most: float = 2.0
    space: Space = "eps"
    seeds: Sequence[int] = (0, 1)
    sampling_steps: int = 12
    guidance: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("rank", "steps", "draws", "sampling_steps"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; at least 1")
        for name in ("rate", "most"):
            if not 0 < getattr(self, name) < float("inf"):
                raise UsageError(f"{name} is {getattr(self, name)}; a number above 0")
        if not self.seeds:
            raise UsageError("seeds is empty; give one, seeds=[0]")


@checked
def slider(
    model: Model,
    positive: Sequence[str],
    negative: Sequence[str],
    neutral: Sequence[str] | None = None,
    *,
    sites: Sequence[str | Site] | None = None,
    settings: SliderFit | None = None,
    progress: Progress | None = None,
) -> Edit:
    """Return an Edit that moves pictures from what ``negative`` says towards what ``positive`` says.

    ``0.5 * edit`` moves half as far, ``-1 * edit`` the other way; as a LoRA it goes to others
    (``editing.export.lora``). Its note tells which share of the change was ``missed`` at strengths 1 and -1,
    on the runs that it was learned from. The model is not changed.

    Args:
        model: an opened model that reads text.
        positive: texts with the attribute, ``"a noto emoji of an old cook"``.
        negative: the same with its opposite, one for each.
        neutral: the texts whose pictures are to move, one for each pair; None is ``negative``.
        sites: whose linear layers are changed, patterns too; None is all projections of the denoiser's
            attention within the picture, and of its joint attention.
        settings: of the fit; None is ``SliderFit()``.
        progress: called with (done, total, what).

    Raises:
        ValueError: for texts that do not pair, or sites without a linear layer of the denoiser.
        LookupError: for sites that the model does not have.
        RuntimeError: if the loss is not finite, or the fit ends further off than it began.

    >>> from denoscope.models.synthetic.tiny import tiny_sd
    >>> how = SliderFit(rank=1, steps=2, seeds=[0], sampling_steps=2)
    >>> edit = slider(load(tiny_sd()), ["a red cat"], ["a blue cat"], ["a cat"], settings=how)
    >>> sorted(edit.to_frame()["rank"].unique().tolist())
    [1]
    """
    how = settings or SliderFit()
    check_pairs(positive, negative, neutral)
    examples = Examples(list(neutral or negative), list(positive), list(negative))
    weights = linear_weights(model, sites)
    read = encoded(model, examples.texts)
    drawn = moments(
        model,
        examples,
        read,
        seeds=how.seeds,
        space=how.space,
        steps=how.sampling_steps,
        guidance=how.guidance,
    )
    if not drawn.apart.any():
        raise UsageError(
            f"{model.name} makes the same of {positive[0]!r} and {negative[0]!r}: nothing to learn"
        )
    factors, asked = started(weights, how.rank, how.seed), Asked(model)

    def error(some: Tensor, s: float) -> Tensor:
        prompts = [read[examples.neutral[drawn.pair[int(i)]]] for i in some]
        steps = [drawn.steps[int(i)] for i in some]
        said = asked.with_weights(moved(weights, factors, s), how.space, drawn.x[some], steps, prompts)
        return (said - drawn.wanted(some, torch.full((len(some),), s))).square().mean()

    def loss(_: int, source: torch.Generator) -> Tensor:
        some = torch.randint(len(drawn.x), (how.draws,), generator=source)
        return error(some, how.most * (2 * float(torch.rand((), generator=source)) - 1))

    adamw: Any = partial(torch.optim.AdamW, lr=how.rate)
    fit(factors, loss, steps=how.steps, optimizer=adamw, seed=how.seed, progress=progress)
    note = {
        "texts": [list(t) for t in zip(examples.neutral, positive, negative, strict=True)],
        "settings": {**asdict(how), "seeds": list(how.seeds)},
        "missed": _missed(drawn, error, how),
    }
    return Edit.of(model, {n: change_of(factors, n) for n in weights}, method="slider", **note)


def _missed(drawn: Moments, error: Callable[[Tensor, float], Tensor], how: SliderFit) -> float:
    """Which share of what was asked for is missed at strengths 1 and -1; without a slider it is 1."""
    blocks = torch.arange(len(drawn.x)).split(how.draws)
    with torch.no_grad():
        squares = [len(b) * float(error(b, s)) for b in blocks for s in (1.0, -1.0)]
    share = sum(squares) / (2 * len(drawn.x) * float(drawn.apart.square().mean()))
    if not share < 1:
        raise StateError(
            f"the slider misses {share:.0%} of the change that it was asked for, and none would miss 100%: "
            f"the fit went astray; lower its rate: SliderFit(rate={how.rate / 4:g})"
        )
    return share
