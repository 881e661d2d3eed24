"""A delta of tokens that is learned: with it the denoiser makes of a text what it makes of other words.

Baumann et al. 2025 (arXiv:2403.17064), section 3.3. With f the prediction, of pictures of a neutral text:

    y = f(x_t | neutral) + s (f(x_t | positive) - f(x_t | negative))
    loss = MSE(f(x_t | E(neutral) + s d), y)

with s of either sign. In the authors' code f is the predicted picture, whatever the network predicts
(``space="x0"``), so that the noisiest steps weigh most; ``space="eps"`` weighs all alike. Where they sample a
run for each x_t, and ask for y anew, here whole trajectories are kept with their y, and drawn from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from ...models.arguments import check_fields
from ...models.base import Model, Prompt
from ...models.errors import UsageError
from ...models.fit import fit
from ...models.progress import Progress
from ...models.run.levels import Step
from ...models.run.sampling import SamplingOptions
from ...models.site import Site
from ...probes.directions.token_rows import KINDS, TokenRows
from ...probes.text_states import encoded


@dataclass(frozen=True)
class Learned:
    """Settings of a fit; those of the paper's code where it has them.

    Args:
        steps: of the optimizer.
        draws: noised pictures at each step (the code's ``accumulate_grad_batches``).
        scales: how many s for each.
        scale: between which numbers the amount of s lies; its sign is drawn.
        space: in which the error is measured: "x0", as published, or "eps".
        rate: of AdamW, with betas 0.5 and 0.8 and weight decay 0.333.
        seeds: of the trajectories, each with each neutral text.
        sampling_steps: of a trajectory.
        guidance: of a trajectory; None is the model's default.
        seed: of what is drawn.

    Raises:
        ValueError: for numbers that make no fit.
    """

    steps: int = 1000
    draws: int = 10
    scales: int = 4
    scale: tuple[float, float] = (0.1, 5.0)
    space: Literal["x0", "eps"] = "x0"
    rate: float = 0.1
    seeds: Sequence[int] = (0, 1)
    sampling_steps: int = 20
    guidance: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("steps", "draws", "scales", "sampling_steps"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; at least 1")
        if not 0 <= self.scale[0] <= self.scale[1] < float("inf") or not self.seeds:
            raise UsageError(
                f"scale is {self.scale} and seeds are {self.seeds}; give 0 <= a <= b, and a seed"
            )
        if not 0 < self.rate < float("inf"):
            raise UsageError(f"rate is {self.rate}; a number above 0")


@dataclass(frozen=True)
class Examples:
    """Texts that belong together, one of each a pair."""

    neutral: Sequence[str]
    positive: Sequence[str]
    negative: Sequence[str]
    subjects: Sequence[str]


@dataclass(frozen=True, eq=False)
class Moments:
    """Noised pictures of all trajectories, and what is said of them.

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


def learn(
    model: Model,
    examples: Examples,
    how: Learned,
    chosen: Sequence[str],
    *,
    progress: Progress | None = None,
) -> tuple[dict[Site, Tensor], dict[str, Any]]:
    """Return the learned vectors by site, and what provenance says of the fit."""
    kinds = tuple(k for k in KINDS if k in chosen)
    read = encoded(model, [*examples.neutral, *examples.positive, *examples.negative])
    neutral = [read[t] for t in examples.neutral]
    moments = seen(model, examples, read, how)
    index = [
        TokenRows(kinds, s).index([p])[0] if kinds else torch.full((len(p.embeds),), -1)
        for p, s in zip(neutral, examples.subjects, strict=True)
    ]
    deltas = _zeros(neutral[0], len(neutral[0].segments) * len(kinds), "pooled" in chosen)

    def loss(_: int, source: torch.Generator) -> Tensor:
        some = torch.randint(len(moments.x), (how.draws,), generator=source).repeat_interleave(how.scales)
        low, high = how.scale
        s = low + (high - low) * torch.rand(len(some), generator=source)
        s = torch.where(torch.rand(len(some), generator=source) < 0.5, -s, s).to(moments.x)
        rows = some.tolist()
        prompts = [
            moved(neutral[moments.pair[i]], index[moments.pair[i]], deltas, float(a))
            for i, a in zip(rows, s, strict=True)
        ]
        said = in_space(model, how, moments.x[some], [moments.steps[i] for i in rows], prompts)
        wanted = moments.plain[some] + s.view(-1, *[1] * (said.ndim - 1)) * moments.apart[some]
        return (said - wanted).square().mean()

    adamw = partial(torch.optim.AdamW, lr=how.rate, betas=(0.5, 0.8), weight_decay=0.333)
    fitted = fit(deltas, loss, steps=how.steps, optimizer=adamw, seed=how.seed, progress=progress)
    part = model.input_site.component
    names = {"text": Site(f"{part}/in/text"), "pooled": Site(f"{part}/in/pooled")}
    told = {
        **vars(how),
        "scale": list(how.scale),
        "seeds": list(how.seeds),
        "losses": fitted.losses[[0, -1]].tolist(),
    }
    return {names[n]: d.detach().cpu() for n, d in deltas.items()}, {"learned": told}


def _zeros(prompt: Prompt, rows: int, pooled: bool) -> dict[str, Tensor]:
    found = {}
    if rows:
        found["text"] = prompt.embeds.new_zeros(rows, prompt.embeds.shape[1]).float()
    if pooled and prompt.pooled is not None:
        found["pooled"] = torch.zeros_like(prompt.pooled).float()
    return {name: d.requires_grad_() for name, d in found.items()}


def moved(prompt: Prompt, index: Tensor, deltas: Mapping[str, Tensor], s: float) -> Prompt:
    """Return a prompt with s times the deltas added to the rows that ``index`` names."""
    embeds, pooled = prompt.embeds, prompt.pooled
    if "text" in deltas:
        delta = deltas["text"]
        over = torch.cat([delta.new_zeros(1, delta.shape[1]), delta])[index.to(delta.device) + 1]
        embeds = embeds + (s * over).to(embeds)
    if "pooled" in deltas and pooled is not None:
        pooled = pooled + (s * deltas["pooled"]).to(pooled)
    return replace(prompt, embeds=embeds, pooled=pooled)


@torch.no_grad()
def seen(model: Model, examples: Examples, read: Mapping[str, Prompt], how: Learned) -> Moments:
    """Paint the neutral texts, and ask at each step what the three texts of a pair predict."""
    pairs = [i for i in range(len(examples.neutral)) for _ in how.seeds]
    texts = [read[examples.neutral[i]] for i in pairs]
    settings: SamplingOptions = {"steps": how.sampling_steps, "guidance": how.guidance}
    xs, steps, plain, apart = [], list[Step](), [], []
    for state in model.sample(texts, seeds=[*how.seeds] * len(examples.neutral), **settings):
        x, step = state.model_input, state.step
        at = [step] * len(x)
        ask = [[read[of[i]] for i in pairs] for of in (examples.positive, examples.negative)]
        up, down = (in_space(model, how, x, at, prompts) for prompts in ask)
        xs.append(x)
        plain.append(in_space(model, how, x, at, texts))
        apart.append(up - down)
        steps += at
    whole = (torch.cat(parts) for parts in (xs, plain, apart))
    x, f, d = whole
    return Moments(x, tuple(steps), f, d, tuple(pairs) * (len(steps) // len(pairs)))


def in_space(
    model: Model, how: Learned, x: Tensor, steps: Sequence[Step], prompts: Sequence[Prompt]
) -> Tensor:
    """Return what is predicted, as clean latents or as noise."""
    turned = model.to_x0 if how.space == "x0" else model.to_eps
    return turned(x, model.denoise(x, steps, prompts), steps)
