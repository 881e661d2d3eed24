"""Interventions inside a user's own pipeline call: img2img, inpainting, ControlNet, callbacks, anything."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from ..models.base import Model
from ..models.load import opened
from ..models.places.hooks import around
from ..models.run.context import TEXT, Branch, Call
from ..models.run.levels import Step
from ..models.run.schedule import noise_level
from .intervene import Probe, intervening


@contextmanager
def attached(pipe: Any, *interventions: Probe) -> Iterator[Model]:
    """Let interventions act while you call a diffusers pipeline yourself.

    A step counts the calls of the scheduler since the pipeline began, so 0 is the first step of img2img too.
    Branch and rows are those of the pipeline's batch.

    Args:
        pipe: a diffusers pipeline of a supported family, or an opened model.
        interventions: what to do where; see ``Intervention``.

    Yields:
        The opened model, whose sites, weights and edits are the pipeline's.

    Raises:
        LookupError: if a site is not in the model.
        ValueError: for a pipeline of an unknown family.

    >>> from denoscope.models.synthetic.tiny import tiny_sd
    >>> from denoscope.probes.intervene import zero
    >>> pipe = tiny_sd()
    >>> with attached(pipe, zero("unet/mid.attn.0.0/cross_attn.out")):
    ...     picture = pipe("a cat", num_inference_steps=2).images[0]
    """
    model = opened(pipe)
    clock = _Clock(model)
    with ExitStack() as stack:
        for name in ("step", "set_timesteps"):
            stack.enter_context(_wrapped(model.scheduler, name, getattr(clock, name)))
        stack.enter_context(around(model.denoiser, clock.enter, clock.leave))
        for part, module in model.components.items():
            if part.startswith("text_encoder"):
                stack.enter_context(around(module, functools.partial(clock.read, part), clock.leave))
        stack.enter_context(intervening(model, *interventions))
        yield model


class _Clock:
    """Knows, from the calls that it sees, which step and which rows the network is at."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.set_timesteps()

    def set_timesteps(self) -> None:
        """A run begins."""
        self.done = self.place = self.passes = 0
        self.texts: dict[str, int] = {}

    def step(self) -> None:
        """The scheduler has made a step."""
        self.done, self.passes = self.done + 1, 0

    def enter(self, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        """The denoiser is called."""
        x: Any = args[0] if args else kwargs.get("hidden_states", kwargs.get("sample"))
        told = kwargs["timestep"] if "timestep" in kwargs else args[1]
        self.texts = {}
        rows, step = self._rows(x), self._step(told)
        each = (step,) * next(r.stop - r.start for r in rows.values())
        self.model.live.begin(Call(self.model.input_site.component, rows, each))
        self.passes += 1

    def read(self, part: str, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        """A text encoder is called."""
        ids = args[0] if args else kwargs["input_ids"]
        branch = self.model.text_branch(ids, self.texts.get(part, 0))
        self.texts[part] = self.texts.get(part, 0) + 1
        self.model.live.begin(Call(TEXT, {branch: slice(0, len(ids))}))

    def leave(self) -> None:
        """A call is over, error or not."""
        self.model.live.call = None

    def _step(self, told: Any) -> Step:
        """The step at the scheduler's nearest time from where it is on."""
        t = float(torch.as_tensor(told).flatten()[0]) * self.model.time_scale
        times = torch.as_tensor(self.model.scheduler.timesteps).double()
        self.place += int((times[self.place :] - t).abs().argmin()) if self.place < len(times) else 0
        place = min(self.place, len(times) - 1)
        return Step(self.done, float(times[place]), noise_level(self.model.scheduler, place))

    def _rows(self, x: Tensor) -> dict[Branch, slice]:
        n = len(x)
        if self.model.cfg_in_two_passes:
            return {"uncond" if self.passes else "cond": slice(0, n)}
        if not self._guided(x):
            return {"cond": slice(0, n)}
        first, second = self.model.branch_order
        return {first: slice(0, n // 2), second: slice(n // 2, n)}

    def _guided(self, x: Tensor) -> bool:
        """What the pipeline says; those that do not say it show the network the same latents twice."""
        if not self.model.conditional:
            return False
        said = getattr(self.model.pipe, "do_classifier_free_guidance", None)
        if said is not None:
            return bool(said)
        half = len(x) // 2
        return len(x) % 2 == 0 and torch.equal(x[:half], x[half:])


@contextmanager
def _wrapped(scheduler: Any, name: str, after: Callable[[], None]) -> Iterator[None]:
    """Call something after each call of a scheduler's method."""
    method = getattr(scheduler, name)

    @functools.wraps(method)  # pipelines look at the signature
    def call(*args: Any, **kwargs: Any) -> Any:
        result = method(*args, **kwargs)
        after()
        return result

    own = vars(scheduler).get(name)
    setattr(scheduler, name, call)
    try:
        yield
    finally:
        if own is None:
            delattr(scheduler, name)
        else:
            setattr(scheduler, name, own)
