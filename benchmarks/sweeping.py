"""What a causal map costs, against the published scheme: clean, corrupted and restored anew for every site.

Basu et al. 2024 restore one site at a time in a batch of three runs, each with guidance: six network rows at
every step for every site (docs of ``analysis.mediation``). Clean and corrupted runs are the same for all
sites, and a run restored from step k on equals the corrupted run before k; ``trace_denoiser`` uses both.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from measure import Row, race
from torch import Tensor

import denoscope
from denoscope.analysis import Mediation, Swap, trace_denoiser
from denoscope.analysis.mediation.choice import denoiser_sites
from denoscope.analysis.metrics import Metric, Outcome, clip_score
from denoscope.models.judges import load_judge
from denoscope.models.text.prompt import Prompt

PROMPT, SUBJECT, OTHER = "a noto emoji of a woman firefighter", "firefighter", "cook"
SEED, STEPS = 0, 10
TARGETS = {"emoji": (0.34, 0.4)}
"""Of rows and time; asked of the UNet's many sites."""
Network = Callable[[Tensor, Tensor], Tensor]
"""Latents and a time -> what the network says."""
WINDOWS = [range(i, i + 2) for i in range(0, STEPS, 2)]


@dataclass
class Reference:
    """The published scheme, written plainly; it counts the network rows it computes."""

    model: denoscope.Model
    metric: Metric
    rows: int = 0
    step: int = 0
    scores: list[float] = field(default_factory=list)

    def run(self, sites: Sequence[denoscope.Site], windows: Sequence[Collection[int]]) -> None:
        """Score every site in every window of steps."""
        self.rows, self.scores = 0, []
        clean, spoilt = self.model.encode([PROMPT, PROMPT.replace(SUBJECT, OTHER)])
        null = self.model.encode([""])[0]
        predict = _network(self.model.pipe, (null, null, null, clean, spoilt, spoilt))
        for site in sites:
            for window in windows:
                latents = self._three(predict, self.model.module(site), window)
                outcome = Outcome(latents[2:], (clean,), self.model.decode, latents[:1])
                self.scores.append(float(self.metric(outcome)))

    def _three(self, predict: Network, module: torch.nn.Module, window: Collection[int]) -> Tensor:
        pipe: Any = self.model.pipe
        scheduler = copy.deepcopy(pipe.scheduler)

        def restore(_module: object, _args: object, out: Tensor) -> Tensor | None:
            if self.step not in window:
                return None
            out = out.clone()
            out[5] = out[3]  # [uncond x 3 | clean, corrupted, restored]
            return out

        scheduler.set_timesteps(STEPS)
        x = self.model.noise([SEED]).repeat(3, 1, 1, 1) * scheduler.init_noise_sigma
        hook = module.register_forward_hook(restore)
        try:
            for self.step, t in enumerate(scheduler.timesteps):
                seen = scheduler.scale_model_input(torch.cat([x, x]), t)
                free, told = predict(seen, t).chunk(2)
                self.rows += len(seen)
                guided = free + self.model.default_guidance * (told - free)
                x = scheduler.step(guided, t, x, return_dict=False)[0]
        finally:
            hook.remove()
        return x


def _network(pipe: Any, told: Sequence[Prompt]) -> Network:
    """The pipeline's own network with these texts, called as diffusers calls it."""
    embeds = torch.stack([p.embeds for p in told])
    if hasattr(pipe, "unet"):
        return lambda seen, t: pipe.unet(seen, t, encoder_hidden_states=embeds).sample
    given = {
        "encoder_hidden_states": embeds,
        "encoder_attention_mask": torch.stack([cast(Tensor, p.mask) for p in told]),
        "added_cond_kwargs": {"resolution": None, "aspect_ratio": None},
    }
    return lambda seen, t: pipe.transformer(seen, timestep=t.expand(len(seen)), **given).sample


def measure(rounds: int) -> list[Row]:
    """Rows, time and numbers of the sweep against the reference: at all steps, and in windows of steps."""
    return [row for name in ("emoji", "emoji-dit") for row in _measured(name, rounds)]


def _measured(name: str, rounds: int) -> list[Row]:
    model = denoscope.load(name)
    metric = clip_score(load_judge(name), f"a {SUBJECT}")
    layers = denoiser_sites(model, None)
    crosses = [s for s in layers if s.kind == "cross_attn.out"]
    return [
        *_compare(model, metric, layers, None, rounds),
        *_compare(model, metric, crosses, WINDOWS, rounds),
    ]


def _compare(
    model: denoscope.Model,
    metric: Metric,
    sites: Sequence[denoscope.Site],
    windows: Sequence[Collection[int]] | None,
    rounds: int,
) -> list[Row]:
    reference = Reference(model, metric)
    found: list[Mediation] = []

    def ours() -> None:
        found[:] = [
            trace_denoiser(
                model,
                [PROMPT],
                SUBJECT,
                seeds=[SEED],
                metric=metric,
                sites=sites,
                windows=windows,
                corruption=Swap(OTHER),
                steps=STEPS,
            )
        ]

    with torch.no_grad():
        pair = race(ours, lambda: reference.run(sites, windows or [range(STEPS)]), rounds, warm=False)
    scores = found[0].data["restored"].values.reshape(-1)
    apart = float(np.abs(scores - np.array(reference.scores)).max())
    when = f" x {len(windows)} windows of steps" if windows else ", all steps"
    places = f"{model.name}, {len(sites)} sites{when}"
    of_rows, of_time = TARGETS.get(model.name, (None, None))
    against = "clean, corrupted, restored for each"
    seconds = "{:.1f} s against {:.1f} s".format(*pair.seconds)
    counts = f"{found[0].rows} against {reference.rows}"
    if not windows:
        counts += "; a third, less the unconditional row of the first step, and two runs that all sites share"
    spread = f"CLIP scores from {scores.min():.3f} to {scores.max():.3f}"
    return [
        Row(
            f"causal sweep, {places}: network rows",
            against,
            found[0].rows / reference.rows,
            of_rows,
            note=counts,
        ),
        Row(f"causal sweep, {places}: time", against, pair.ratio, of_time, note=seconds),
        Row(f"causal sweep, {places}: largest difference", against, apart, 1e-5, "score", spread),
    ]
