"""The sampling loop: ours, the same for every family, equal to the diffusers pipeline to the bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..adapter import Adapter
from ..guidance.cfg import CFG
from ..guidance.value import Combined, Guidance
from ..places.account import Account
from ..places.intervention import Intervention, Probe, intervening, parts_of
from ..text.prompt import Prompt
from .asymmetric import asymmetric_step
from .branches import Guided, Reading, branch_interventions, guided, read
from .context import Branch
from .levels import Step, check_step
from .schedule import copied, noise_level, scaled, step_kwargs
from .state import SamplerState, State


class SamplingOptions(TypedDict, total=False):
    """The keywords of ``Sampling``, the same in every function that samples."""

    steps: int
    guidance: float | Guidance | None
    negative: str | Sequence[str | Prompt]
    size: tuple[int, int] | None


@dataclass(frozen=True)
class Sampling:
    """How a run is sampled.

    Args:
        steps: number of steps.
        guidance: a scale, or a Guidance; None is the model's default, 1 or less is none.
        negative: what the unconditional branch reads: one text for all samples, or one a sample.
        size: height and width in pixels; None is the model's own.

    Raises:
        ValueError: for steps below 1, and guidance below 0 or NaN.
    """

    steps: int = 20
    guidance: float | Guidance | None = None
    negative: str | Sequence[str | Prompt] = ""
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}; a run needs at least 1")
        if self.guidance is not None:
            as_guidance(self.guidance)

    def described(self, model: Adapter) -> dict[str, Any]:
        """Return the settings as numbers and texts, for the provenance of a result."""
        guidance = model.default_guidance if self.guidance is None else self.guidance
        negative = self.negative if isinstance(self.negative, str) else list(map(_text, self.negative))
        plain = guidance if isinstance(guidance, (int, float)) else repr(guidance)
        return {"steps": self.steps, "guidance": plain, "negative": negative}

    def guided(self, model: Adapter) -> Guidance:
        """Return the guidance as a value."""
        return as_guidance(model.default_guidance if self.guidance is None else self.guidance)


def _text(prompt: str | Prompt) -> str:
    return prompt if isinstance(prompt, str) else prompt.text


def as_guidance(guidance: float | Guidance) -> Guidance:
    """Return a number as the classifier-free guidance that it is short for."""
    return guidance if isinstance(guidance, Guidance) else CFG(float(guidance))


def check_run(n_prompts: int, seeds: Sequence[int]) -> None:
    """Raise ValueError or TypeError, with the fix, if a run cannot be made."""
    if isinstance(seeds, int):
        raise TypeError(f"seeds is the single number {seeds}; give one for each prompt: [{seeds}]")
    if not n_prompts or len(seeds) != n_prompts:
        raise ValueError(f"{n_prompts} prompts but {len(seeds)} seeds; give one seed for each prompt")


def sample(
    model: Adapter,
    prompts: Sequence[str | Prompt],
    *,
    seeds: Sequence[int],
    sampling: Sampling,
    start: SamplerState | None = None,
    interventions: Sequence[Probe] = (),
    recompute: bool = False,
) -> Iterator[State]:
    """Yield the state after each step; see ``Model.sample``."""
    check_run(len(prompts), seeds)
    if recompute and model.live.watched:
        raise RuntimeError(
            "steps that are computed again for their gradients would run without the interventions of the "
            "surrounding context; give them to the run itself: interventions=[...]"
        )
    guidance = sampling.guided(model)
    planned = parts_of(model, (*branch_interventions(guidance, model), *interventions))
    account = Account(planned)
    with intervening(model, *planned, account=account):
        reading = read(model, guidance, prompts, sampling.negative)
    start = start or begin_run(model, seeds, sampling.steps)
    generators = [torch.Generator().set_state(s) for s in start.noise_states]
    x, scheduler = start.latents, copied(start.scheduler)
    known, memory = start.known, start.memory
    told = tuple(reading.prompts["cond"])
    for i, t in list(enumerate(scheduler.timesteps))[start.index :]:
        step = Step(i, float(t), noise_level(scheduler, i))
        seen = scaled(scheduler, x, t)
        call = _calling(model, (step,) * len(seen), reading, planned, account)
        made = _recomputed(call, seen, known, memory) if recompute else call(seen, known, memory)
        known, memory = {}, made.combined.memory
        x = _stepped(scheduler, made.combined, t, x, generators)
        kept = (scheduler, generators, memory)
        yield State(step, x, seen, made.combined.output, made.outputs, made.rows, told, account, kept)
    account.close()


def begin_run(model: Adapter, seeds: Sequence[int], steps: int) -> SamplerState:
    """Return the moment before the first step of a run."""
    scheduler = model._begin(steps)
    generators = [torch.Generator().manual_seed(s) for s in seeds]
    latents = model._draw(generators) * getattr(scheduler, "init_noise_sigma", 1.0)
    return SamplerState(0, latents, scheduler, tuple(g.get_state() for g in generators))


def _calling(
    model: Adapter,
    steps: tuple[Step, ...],
    reading: Reading,
    planned: Sequence[Intervention],
    account: Account,
) -> Callable[..., Guided]:
    """Return the network's call at a step as a pure function, which may be computed again for gradients."""
    first = iter((account,))

    def call(x: Tensor, known: Mapping[Branch, Tensor], memory: Mapping[str, Tensor]) -> Guided:
        kept = next(first, None) or Account(planned)  # what is computed again is no call of the run
        with intervening(model, *planned, account=kept):
            return guided(model, x, steps, reading, known=known, memory=memory)

    return call


def _recomputed(call: Callable[..., Guided], *args: Any) -> Guided:
    """Keep nothing for gradients but what went in; compute again when they are wanted."""
    made: Guided = checkpoint(call, *args, use_reentrant=False)
    return made


def _stepped(
    scheduler: Any, combined: Combined, t: Tensor, x: Tensor, generators: Sequence[torch.Generator]
) -> Tensor:
    if combined.direction is not None:
        return asymmetric_step(scheduler, combined.output, combined.direction, t, x)
    new: Tensor = scheduler.step(
        combined.output, t, x, return_dict=False, **step_kwargs(scheduler, generators)
    )[0]
    return new


def denoised(
    model: Adapter,
    x: Tensor,
    steps: Step | Sequence[Step],
    prompts: Sequence[str | Prompt],
    *,
    guidance: Guidance,
    negative: str | Sequence[str | Prompt] = "",
    interventions: Sequence[Probe] = (),
) -> Tensor:
    """Return the guided output of one call; see ``Model.denoise``."""
    each = (steps,) * len(x) if isinstance(steps, Step) else tuple(steps)
    if not len(x) == len(each) == len(prompts):
        raise ValueError(
            f"{len(x)} rows, {len(each)} steps, {len(prompts)} prompts; give one prompt a row, and one step "
            "for all rows or one a row"
        )
    for step in dict.fromkeys(each):
        check_step(model.scheduler, step)
    planned = parts_of(model, (*branch_interventions(guidance, model), *interventions))
    with intervening(model, *planned):
        reading = read(model, guidance, prompts, negative)
        return guided(model, x, each, reading).combined.output
