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
from ...models.site import Site
from ...probes.directions.moments import Examples, moments, predicted
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


def learn(
    model: Model,
    examples: Examples,
    subjects: Sequence[str],
    how: Learned,
    chosen: Sequence[str],
    *,
    progress: Progress | None = None,
) -> tuple[dict[Site, Tensor], dict[str, Any]]:
    """Return the learned vectors by site, and what provenance says of the fit."""
    kinds = tuple(k for k in KINDS if k in chosen)
    read = encoded(model, examples.texts)
    neutral = [read[t] for t in examples.neutral]
    of: dict[str, Any] = {
        "seeds": how.seeds,
        "space": how.space,
        "steps": how.sampling_steps,
        "guidance": how.guidance,
    }
    drawn = moments(model, examples, read, **of)
    index = [
        TokenRows(kinds, s).index([p])[0] if kinds else torch.full((len(p.embeds),), -1)
        for p, s in zip(neutral, subjects, strict=True)
    ]
    deltas = _zeros(neutral[0], len(neutral[0].segments) * len(kinds), "pooled" in chosen)

    def loss(_: int, source: torch.Generator) -> Tensor:
        some = torch.randint(len(drawn.x), (how.draws,), generator=source).repeat_interleave(how.scales)
        low, high = how.scale
        s = low + (high - low) * torch.rand(len(some), generator=source)
        s = torch.where(torch.rand(len(some), generator=source) < 0.5, -s, s).to(drawn.x)
        rows = some.tolist()
        prompts = [
            moved(neutral[drawn.pair[i]], index[drawn.pair[i]], deltas, float(a))
            for i, a in zip(rows, s, strict=True)
        ]
        said = predicted(model, how.space, drawn.x[some], [drawn.steps[i] for i in rows], prompts)
        return (said - drawn.wanted(some, s)).square().mean()

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
