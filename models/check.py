"""``check_model``: what every adapter has to hold, measured on the model at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import diffusers
import pandas as pd
import torch
from torch import Tensor

from .arguments import checked
from .base import Model, check_run
from .errors import UsageError
from .places.hooks import hooked
from .places.mode import evaluating
from .run.noise import generators
from .run.sampling import Sampling
from .run.schedule import is_flow
from .site import Site
from .undo import Undo

SCHEDULERS: dict[str, Mapping[str, Any]] = {
    "DDIMScheduler": {},
    "EulerDiscreteScheduler": {},
    "DPMSolverMultistepScheduler": {},
}
_FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "use_dynamic_shifting": True}
FLOW_SCHEDULERS: dict[str, Mapping[str, Any]] = {
    "FlowMatchEulerDiscreteScheduler": {},
    "DPMSolverMultistepScheduler": _FLOW,
    "UniPCMultistepScheduler": _FLOW,
}
TOLERANCE = 1e-4  # batched and single kernels may round differently


@dataclass(frozen=True)
class Check:
    """One thing held: its name, the largest error seen, and the error allowed."""

    name: str
    error: float
    allowed: float

    @property
    def ok(self) -> bool:
        """Whether the error is within what is allowed; NaN is not."""
        return self.error <= self.allowed


class ModelCheckError(UsageError):
    """An adapter does not do what it promises."""


@checked
def check_model(
    model: Model, prompts: Sequence[str] = ("a cat", "a red dog"), steps: int = 3, guidance: float = 7.5
) -> pd.DataFrame:
    """Measure an adapter: equal to its pipeline to the bit, batch equal to parts, sites, gradients.

    Args:
        model: the opened model; its pipeline is called too.
        prompts: what to generate; seeds are 0, 1, ...
        steps: steps of each run.
        guidance: guidance scale of the guided runs.

    Returns:
        A table of what was checked, with the errors measured.

    Raises:
        ModelCheckError: naming each thing that does not hold.
    """
    check_run(len(prompts), range(len(prompts)))
    model.steps(Sampling(steps=steps, guidance=guidance))  # checks both, in our words
    prompts = list(prompts) if model.conditional else [""] * len(prompts)
    checks = [
        *_equals_pipeline(model, prompts, steps, guidance),
        _batch_equals_parts(model, prompts, steps, guidance),
        _sites_fire(model),
        *_joint_order(model),
        _gradients_flow(model, prompts),
    ]
    wrong = [f"{c.name} (error {c.error:.3g}, allowed {c.allowed:.3g})" for c in checks if not c.ok]
    if wrong:
        raise ModelCheckError(f"{model!r} does not hold: {'; '.join(wrong)}")
    return pd.DataFrame([(c.name, c.error, c.allowed) for c in checks], columns=["check", "error", "allowed"])


def _equals_pipeline(model: Model, prompts: list[str], steps: int, guidance: float) -> list[Check]:
    scales = (1.0, guidance) if model.conditional else (1.0,)
    original, checks = model.pipe.scheduler, []
    own: dict[str, Mapping[str, Any]] = {type(original).__name__: {}}
    others = model.other_schedulers
    if others is None:
        others = FLOW_SCHEDULERS if is_flow(original) else SCHEDULERS
    with Undo() as undo:
        undo.add(partial(setattr, model.pipe, "scheduler", original))
        for name, options in {**own, **others}.items():
            model.pipe.scheduler = getattr(diffusers, name).from_config(original.config, **options)
            for scale in scales:
                error = _difference(model, prompts, steps, scale)
                checks.append(
                    Check(f"equals the pipeline to the bit: {name}, guidance {scale:g}", error, 0.0)
                )
    return checks


def _difference(model: Model, prompts: list[str], steps: int, guidance: float) -> float:
    seeds = list(range(len(prompts)))
    with torch.no_grad():
        with evaluating(m for part in model.components.values() for m in part.modules()):
            theirs = model.run_pipeline(prompts, generators(seeds), steps, guidance)
        ours = model.decode(_final(model, prompts, seeds, steps, guidance))
    return float((ours - theirs).abs().max())


def _final(model: Model, prompts: list[str], seeds: list[int], steps: int, guidance: float) -> Tensor:
    *_, state = model.sample(prompts, seeds=seeds, steps=steps, guidance=guidance)
    return state.latents


def _batch_equals_parts(model: Model, prompts: list[str], steps: int, guidance: float) -> Check:
    with torch.no_grad():
        together = _final(model, prompts, list(range(len(prompts))), steps, guidance)
        alone = [_final(model, [p], [i], steps, guidance) for i, p in enumerate(prompts)]
    error = (together - torch.cat(alone)).abs().max() / together.abs().max()
    return Check("a batch equals its parts", float(error), TOLERANCE)


def _sites_fire(model: Model) -> Check:
    """Each site is seen exactly once in a run of one step."""
    seen = dict.fromkeys(model.sites(), 0)

    def count(site: Site, _: Any) -> None:
        seen[site] += 1

    with torch.no_grad(), hooked(model, [(s, partial(count, s)) for s in seen]):
        next(model.sample([""], seeds=[0], steps=1, guidance=1))
    return Check("every site is seen once in a step", float(sum(n != 1 for n in seen.values())), 0.0)


def _joint_order(model: Model) -> list[Check]:
    """The picture's tokens lie in joint attention where the adapter says: its values act there."""
    site = next((s for s in model.places() if s.kind == "joint_attn.v" and _streamed(model, s)), None)
    if site is None:
        return []
    source = Site(f"{site.component}/{site.block}/joint_attn.v_proj@img")
    seen: list[Tensor] = []

    def look(x: Any) -> None:
        seen.append(x[:].detach().clone())

    def double(x: Any) -> tuple[slice, Tensor]:
        return slice(None), 2 * x

    for more in ([], [(source, double)]):
        with torch.no_grad(), hooked(model, [*more, (site, look)]):
            next(model.sample([""], seeds=[0], steps=1, guidance=1))
    changed = (seen[1] - seen[0]).abs().amax((0, 1, 3)) > 0
    tokens = model.layout(site).tokens
    told = torch.zeros_like(changed)
    told[tokens.picture if tokens and tokens.picture else slice(0, 0)] = True
    return [Check("joint attention has the picture's tokens there", float((told != changed).sum()), 0.0)]


def _streamed(model: Model, site: Site) -> bool:
    return Site(f"{site.component}/{site.block}/joint_attn.v_proj@img") in model.places()


def _gradients_flow(model: Model, prompts: list[str]) -> Check:
    x = model.noise(range(len(prompts))).requires_grad_()
    step = model.steps(2)[0]
    with torch.no_grad():
        told = model.encode(prompts)
    model.denoise(x, step, told).square().sum().backward()
    reached = x.grad is not None and bool(x.grad.isfinite().all()) and bool(x.grad.abs().sum() > 0)
    for part in model.components.values():
        part.zero_grad(set_to_none=True)
    return Check("gradients reach the input", 0.0 if reached else 1.0, 0.0)
