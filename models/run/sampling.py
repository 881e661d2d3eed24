"""The sampling loop: ours, the same for every family, equal to the diffusers pipeline to the bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..adapter import Adapter
from ..arguments import checked
from ..errors import StateError, UsageError
from ..guidance.parts import Combined
from ..guidance.value import Guidance, label
from ..places.account import Account
from ..places.intervention import Intervention, Probe, intervening, parts_of
from ..places.unchanged import condition, same
from ..text.prompt import Prompt
from .asymmetric import asymmetric_step
from .branches import Guided, Reading, branch_interventions, guided, read
from .context import Branch
from .levels import Step, check_step, steps_of
from .noise import generators
from .schedule import check_eta, copied, scaled, step_kwargs
from .settings import Sampling, SamplingOptions, as_guidance
from .state import SamplerState, State

__all__ = ["Sampling", "SamplingOptions", "as_guidance", "begin_run", "check_run", "denoised", "sample"]

_SURROUNDED = (
    "steps that are computed again for their gradients must not depend on the interventions of a surrounding "
    "context; give them to the run itself: interventions=[...], and call backward() outside"
)


@checked
def check_run(n_prompts: int, seeds: Sequence[int]) -> None:
    """Raise ValueError, with the fix, if a run cannot be made."""
    if not n_prompts or len(seeds) != n_prompts:
        raise UsageError(f"{n_prompts} prompts but {len(seeds)} seeds; give one seed for each prompt")


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
        raise StateError(_SURROUNDED)
    check_eta(model.scheduler, sampling.eta)
    guidance = sampling.guided(model)
    start = begin_run(model, seeds, sampling) if start is None else _going_on(model, start, seeds, sampling)
    steps = steps_of(start.scheduler)
    guidance.check(model, steps)
    own = branch_interventions(guidance, model, steps[start.index :])
    planned = parts_of(model, (*own, *interventions))
    account = Account(planned)
    with intervening(model, *planned, account=account):
        reading = read(
            model, guidance, prompts, sampling.negative, text=sampling.text, sizes=sampling.sizes(model)
        )
    account.check_samples(len(prompts))
    for each in planned:
        each.when.check(len(start.scheduler.timesteps), len(seeds), reading.branches)
    sources = [torch.Generator().set_state(s) for s in start.noise_states]
    x, scheduler = start.latents, copied(start.scheduler)
    known, memory = start.known, start.memory
    prompts_read = tuple(reading.prompts["cond"])
    for step, t in list(zip(steps, scheduler.timesteps, strict=True))[start.index :]:
        model_input = scaled(scheduler, x, t)
        call = _calling(model, (step,) * len(model_input), reading, planned, account)
        if recompute:
            call = _recomputed(model, reading, call)
        made = call(model_input, known, memory)
        known, memory = {}, made.combined.memory
        x = _stepped(scheduler, made.combined, t, x, sources, eta=sampling.eta)
        whose = (prompts_read, account, (scheduler, sources, memory))
        said = (made.combined.output, made.outputs, made.rows, _added(guidance, made))
        yield State(step, x, model_input, *said, *whose)
    account.close()


def _added(guidance: Guidance, made: Guided) -> Mapping[str, Tensor]:
    """What each part of the guidance added to the conditional output."""
    cond, output = made.outputs.get("cond"), made.combined.output
    if made.combined.added or cond is None or output is cond:
        return made.combined.added
    return {label(guidance): output - cond}


def _going_on(model: Adapter, start: SamplerState, seeds: Sequence[int], sampling: Sampling) -> SamplerState:
    """Return the start, if it is one of the run that is asked for."""
    if list(seeds) != list(start.seeds):
        raise UsageError(
            f"seeds are {list(seeds)}, but the start's noise is that of seeds {list(start.seeds)}; give "
            f"those, or fresh noise from here on: start=start.reseeded({list(seeds)})"
        )
    if tuple(start.latents.shape[1:]) != tuple(model.latent_shape):
        raise UsageError(
            f"the start's latents are {tuple(start.latents.shape)}, but {model.name} of size {model.size} "
            f"has [sample, {', '.join(map(str, model.latent_shape))}]; give the size= that it was made with"
        )
    if sampling.steps is not None or sampling.schedule.own:
        asked = model._begin(sampling.schedule).timesteps.tolist()
        if asked != start.scheduler.timesteps.tolist():
            raise UsageError(
                f"the start is of a run of {len(start.scheduler.timesteps)} calls of the network with "
                f"{type(start.scheduler).__name__}, not of the one that is asked for ({len(asked)} with "
                f"{type(model.scheduler).__name__}); leave out steps, timesteps and sigmas: it has its own"
            )
    return start


def begin_run(model: Adapter, seeds: Sequence[int], run: int | Sampling) -> SamplerState:
    """Return the moment before the first step of a run: of so many steps, or of a Sampling's."""
    how = run if isinstance(run, Sampling) else Sampling(steps=run)
    scheduler = model._begin(how.schedule)
    sources = generators(seeds)
    latents = model._draw(sources) * getattr(scheduler, "init_noise_sigma", 1.0)
    return SamplerState(0, latents, scheduler, tuple(g.get_state() for g in sources))


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


def _recomputed(model: Adapter, reading: Reading, call: Callable[..., Guided]) -> Callable[..., Guided]:
    """Keep nothing for gradients but what goes in; the same networks compute again when they are wanted."""

    def networks() -> list[nn.Module]:
        others = [b.network for b in reading.branches.values() if b.network is not None]
        return [model.denoiser, *others]

    before = condition(networks())

    def again(*args: Any) -> Guided:
        if model.live.watched:
            raise StateError(_SURROUNDED)
        if not same(before, condition(networks())):
            raise StateError(
                f"{model.input_site.component} is not as it was when the step was made that is computed "
                "again for its gradients (an edit was applied or taken off, weights were written to, a LoRA "
                "was switched); call backward() before that, inside the with block of the edit"
            )
        return call(*args)

    def made(*args: Any) -> Guided:
        guided: Guided = checkpoint(again, *args, use_reentrant=False)
        return guided

    return made


def _stepped(
    scheduler: Any,
    combined: Combined,
    t: Tensor,
    x: Tensor,
    generators: Sequence[torch.Generator],
    *,
    eta: float,
) -> Tensor:
    if combined.direction is not None:
        if eta:
            raise UsageError(f"eta is {eta}, but a guidance with a direction of its own draws no noise")
        return asymmetric_step(scheduler, combined.output, combined.direction, t, x)
    new: Tensor = scheduler.step(
        combined.output, t, x, return_dict=False, **step_kwargs(scheduler, generators, eta)
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
    rows = x.shape[0] if x.ndim else 0
    each = (steps,) * rows if isinstance(steps, Step) else tuple(steps)
    if not rows == len(each) == len(prompts):
        raise UsageError(
            f"{rows} rows, {len(each)} steps, {len(prompts)} prompts; give one prompt a row, and one step "
            "for all rows or one a row"
        )
    shape = (len(x), *model.latent_shape)
    if not x.is_floating_point() or tuple(x.shape) != shape:
        raise UsageError(
            f"x is of {x.dtype}, shape {tuple(x.shape)}; {model.name} reads floating point numbers of shape "
            f"{shape}, at its size {tuple(model.size)}; others: model.sized((height, width))"
        )
    for step in dict.fromkeys(each):
        check_step(model.scheduler, step)
    own = branch_interventions(guidance, model, list(dict.fromkeys(each)))
    planned = parts_of(model, (*own, *interventions))
    with intervening(model, *planned) as account:
        reading = read(model, guidance, prompts, negative)
        account.check_samples(len(prompts))
        return guided(model, x, each, reading).combined.output
