"""The model under study: one sampling loop, owned by us, for every family."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .html import model_html
from .places.blocks import Place
from .places.layout import site_layout
from .places.resolve import resolve
from .run.levels import Branch, Now, Step
from .run.noise import gaussian
from .run.schedule import begin, is_flow, noise_level, scaled, scheduler_join, scheduler_rows, step_kwargs
from .site import Site, match_sites
from .sites import Sites
from .suggest import near
from .text.prompt import Prompt


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Everything needed to go on from one moment of a run; rows can be taken out of it.

    Args:
        index: the next step's index.
        latents: [sample, ...], in the scheduler's own scale.
        scheduler: a private copy, with its memory of earlier steps.
        noise_states: the state of each sample's noise source.
        free: the unconditional output at the next step, where another run knows it already.
    """

    index: int
    latents: Tensor
    scheduler: Any
    noise_states: tuple[Tensor, ...]
    free: Tensor | None = None

    def rows(self, rows: Sequence[int]) -> Checkpoint:
        """Return the checkpoint of some samples, in the order given; samples may repeat."""
        scheduler = scheduler_rows(self.scheduler, rows, self.latents.shape)
        noise = tuple(self.noise_states[i] for i in rows)
        free = None if self.free is None else self.free[list(rows)]
        return Checkpoint(self.index, self.latents[list(rows)], scheduler, noise, free)

    @staticmethod
    def join(parts: Sequence[Checkpoint]) -> Checkpoint:
        """Return one checkpoint of the samples of several, taken at the same step of one schedule."""
        scheduler = scheduler_join([(p.scheduler, p.latents.shape) for p in parts])
        noise = tuple(s for p in parts for s in p.noise_states)
        known = [p.free for p in parts if p.free is not None]
        free = torch.cat(known) if len(known) == len(parts) else None
        return Checkpoint(parts[0].index, torch.cat([p.latents for p in parts]), scheduler, noise, free)


@dataclass(frozen=True, eq=False)
class State:
    """A run just after one step.

    Args:
        step: the step that was made.
        latents: after the step, [sample, ...], in the scheduler's own scale.
        seen: what the network was given at this step, [sample, ...].
        output: the guided network output at this step, [sample, ...].
        free: the unconditional part of it, [sample, ...]; None in an unguided run.
    """

    step: Step
    latents: Tensor
    seen: Tensor
    output: Tensor
    free: Tensor | None
    _run: tuple[Any, list[torch.Generator]] = field(repr=False)

    def checkpoint(self) -> Checkpoint:
        """Freeze the run here, to be continued by ``sample(start=...)``; call it before the next step."""
        scheduler, generators = self._run
        noise = tuple(g.get_state() for g in generators)
        return Checkpoint(self.step.index + 1, self.latents, copy.deepcopy(scheduler), noise)


class Model(ABC):
    """A generator, opened. A family's adapter fills in encode, predict, noise shape and decode.

    Args:
        pipe: the diffusers pipeline; it is held, not changed.
        name: how the model was called when it was loaded.
        default_guidance: guidance used when none is given; None is what its family is used with.
        size: height and width of the pictures, in pixels; None is the model's own.

    Raises:
        ValueError: for a size that the model cannot paint.
    """

    conditional = True
    family_guidance = 7.5
    branch_order: tuple[Branch, Branch] = ("uncond", "cond")
    joint_order: tuple[str, str] = ("img", "txt")
    """Where joint attention has the picture's tokens and the text's."""
    guides_in_passes = False
    """Whether the guidance branches are two calls of the network, the conditional one first."""
    time_scale = 1.0
    """How many of the scheduler's times are one of what the network is told."""
    other_schedulers: Mapping[str, Mapping[str, Any]] | None = None
    """Schedulers that the diffusers pipeline works with too, and their options; None is the usual ones."""

    def __init__(
        self,
        pipe: Any,
        name: str = "",
        default_guidance: float | None = None,
        size: tuple[int, int] | None = None,
    ) -> None:
        self.pipe = pipe
        self.name = name or type(pipe).__name__
        self.default_guidance = self.family_guidance if default_guidance is None else default_guidance
        self.now: Now | None = None
        self.components: Mapping[str, nn.Module] = {
            k: m.eval() for k, m in self._parts().items() if isinstance(m, nn.Module)
        }
        self.size = self._checked_size(size)
        self._places = self._resolve()
        self._shapes: dict[Site, tuple[int, ...]] = {}

    def __repr__(self) -> str:
        parts = ", ".join(f"{k}: {type(m).__name__}" for k, m in self.components.items())
        return f"{type(self).__name__}({self.name!r}; {parts}; {type(self.scheduler).__name__})"

    _repr_html_ = model_html

    # what a family fills in ---------------------------------------------------------------------------

    @property
    @abstractmethod
    def denoiser(self) -> nn.Module:
        """The network that is called at every step."""

    def _parts(self) -> Mapping[str, Any]:
        parts: Mapping[str, Any] = self.pipe.components
        return parts

    def _resolve(self) -> dict[Site, Place]:
        return resolve(self.components)

    @property
    def native_size(self) -> tuple[int, ...]:
        """Height and width of the pictures the model was made for, in pixels; empty if it paints none."""
        return ()

    @property
    def size_unit(self) -> int:
        """Height and width are multiples of this many pixels."""
        return 1

    def _checked_size(self, size: tuple[int, int] | None) -> tuple[int, ...]:
        if size is None:
            return self.native_size
        unit = self.size_unit
        if not self.native_size:
            raise ValueError(f"size is {size}, but {self.name} paints no pictures; leave it out")
        if len(size) != 2 or any(s < unit or s % unit for s in size):
            raise ValueError(
                f"size is {size}; {self.name} paints (height, width) in multiples of {unit} pixels, "
                f"for example {self.native_size}"
            )
        return (int(size[0]), int(size[1]))

    @property
    def entry(self) -> Site:
        """The one place through which the noisy latents enter the network."""
        return Site("unet/in/conv.out")

    @property
    @abstractmethod
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of one sample's latents."""

    @abstractmethod
    def _encode(self, texts: Sequence[str]) -> list[Prompt]: ...

    @abstractmethod
    def predict(self, x: Tensor, step: Step, prompts: Sequence[Prompt]) -> Tensor:
        """The network's own output for network inputs x [sample, ...]; differentiable."""

    @abstractmethod
    def decode(self, latents: Tensor) -> Float[Tensor, "sample ..."]:
        """Turn final latents into pictures [sample, channel, height, width] in 0..1; differentiable."""

    @abstractmethod
    def run_pipeline(
        self, prompts: Sequence[str], generators: list[torch.Generator], steps: int, guidance: float
    ) -> Float[Tensor, "sample ..."]:
        """Pictures from the diffusers pipeline's own loop; what ours is checked against."""

    # places -------------------------------------------------------------------------------------------

    def sites(self, pattern: str = "**") -> Sites:
        """Return the sites whose address matches a glob, as a sequence that shows itself as a table.

        Raises:
            LookupError: if nothing matches; the message names near misses.
        """
        return Sites(match_sites(pattern, list(self._places)), self)

    def place(self, site: Site | str) -> Place:
        """Return where a site lies: module, port and item.

        Raises:
            LookupError: if this model has no such site; the message names near misses.
        """
        site = Site(str(site))
        if site not in self._places:
            raise LookupError(
                f"{self.name} has no site {str(site)!r}; {near(str(site), map(str, self._places))}"
            )
        return self._places[site]

    def module(self, site: Site | str) -> nn.Module:
        """Return the module that carries a site."""
        return self.place(site).module

    layout = site_layout

    def weights(self, site: Site | str) -> dict[str, nn.Parameter]:
        """Return the parameters of the module that carries a site, by full name (``unet.mid_block...``)."""
        place, component = self.place(site), Site(str(site)).component
        return {f"{component}.{place.path}.{n}": p for n, p in place.module.named_parameters()}

    def parameter(self, name: str) -> nn.Parameter:
        """Return one parameter by the full name that ``weights`` gives.

        Raises:
            LookupError: if there is none; the message names near misses.
        """
        component, _, path = name.partition(".")
        try:
            return self.components[component].get_parameter(path)
        except (KeyError, AttributeError):
            names = (f"{c}.{n}" for c, m in self.components.items() for n, _ in m.named_parameters())
            raise LookupError(f"{self.name} has no parameter {name!r}; {near(name, names)}") from None

    # reading the prompt -------------------------------------------------------------------------------

    @property
    def picture_grid(self) -> tuple[int, int]:
        """Height and width of the latents, as a picture."""
        return (self.latent_shape[-2], self.latent_shape[-1])

    @property
    def text_encoders(self) -> tuple[str, ...]:
        """Names of the components that read text, in the pipeline's order."""
        return tuple(name for name in self.components if name.startswith("text_encoder"))

    def reading_sites(self) -> list[Site]:
        """Return the attention probabilities through which the denoiser reads the prompt.

        Raises:
            LookupError: if it reads none: it has neither cross-attention nor joint attention.
        """
        part, kinds = self.entry.component, ("cross_attn.probs", "joint_attn.probs")
        found = [s for s in self._places if s.component == part and s.kind in kinds]
        if not found:
            raise LookupError(
                f"{self.name} reads no words while it paints: "
                f"its {part} has neither cross-attention nor joint attention"
            )
        return found

    def picture_and_text(self, site: Site, tokens: int) -> tuple[slice, int]:
        """Return which queries of attention are the picture's, and at which key the text begins."""
        queries = self.layout(site).picture or slice(None)
        return queries, -tokens if queries.start == 0 else 0

    # text and noise -----------------------------------------------------------------------------------

    @property
    def scheduler(self) -> Any:
        """The pipeline's scheduler; runs work on copies of it."""
        return self.pipe.scheduler

    @property
    def device(self) -> torch.device:
        """Where the denoiser computes; with offloading its weights may rest elsewhere."""
        offloaded = getattr(getattr(self.denoiser, "_hf_hook", None), "execution_device", None)
        return torch.device(offloaded) if offloaded else next(self.denoiser.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The denoiser's number format."""
        return next(self.denoiser.parameters()).dtype

    def encode(self, texts: Sequence[str], branch: Branch = "cond") -> list[Prompt]:
        """Encode texts in one batch; sites in text encoders see this call, as rows of ``branch``."""
        if isinstance(texts, str):
            raise TypeError(f"texts is the single string {texts!r}; give a list: [{texts!r}]")
        with self.during(Now(None, {branch: slice(0, len(texts))})):
            return self._encode(list(texts))

    def noise(self, seeds: Sequence[int]) -> Tensor:
        """Return unit Gaussian starting noise [sample, ...]; row i depends on seed i alone."""
        return self._draw([torch.Generator().manual_seed(s) for s in seeds])

    def _draw(self, generators: Sequence[torch.Generator]) -> Tensor:
        return gaussian(generators, self.latent_shape, self.dtype).to(self.device)

    # sampling -----------------------------------------------------------------------------------------

    def steps(self, n: int) -> list[Step]:
        """Return the steps of a run of n steps: one for each call of the network."""
        scheduler = self._begin(n)
        return [Step(i, float(t), noise_level(scheduler, i)) for i, t in enumerate(scheduler.timesteps)]

    def _begin(self, n: int) -> Any:
        return begin(self.scheduler, n, self.device)

    def time(self, step: Step, rows: int | None = None) -> Tensor:
        """What the network is told about the time: a scalar, or the same for so many rows."""
        whole = float(step.t).is_integer()
        t = torch.tensor(step.t, dtype=torch.int64 if whole else torch.float32, device=self.device)
        return t if rows is None else t.expand(rows)

    def guides(self, guidance: float) -> bool:
        """Return whether a run at this scale has an unconditional branch: two rows for each sample."""
        return self.conditional and guidance > 1

    def branches(
        self,
        x: Tensor,
        step: Step,
        prompts: Sequence[Prompt],
        null: Sequence[Prompt],
        *,
        guidance: float | None = None,
        free: Tensor | None = None,
    ) -> tuple[Tensor | None, Tensor]:
        """Return the unconditional and the conditional output, made in one doubled batch.

        Without ``null`` there is no unconditional output; where it is known (``free``), it is not made again.
        """
        n = len(prompts)
        if not null or free is not None:
            with self.during(Now(step, {"cond": slice(0, n)}, guidance)):
                return free, self.predict(x, step, prompts)
        first, second = self.branch_order
        read = {"uncond": null, "cond": prompts}
        with self.during(Now(step, {first: slice(0, n), second: slice(n, 2 * n)}, guidance)):
            parts = self.predict(torch.cat([x, x]), step, [*read[first], *read[second]]).chunk(2)
        return (parts[0], parts[1]) if first == "uncond" else (parts[1], parts[0])

    def combine(self, free: Tensor, told: Tensor, guidance: float) -> Tensor:
        """Return the guided output (classifier-free guidance, Ho & Salimans 2022, eq. 6)."""
        return free + guidance * (told - free)

    def start(self, seeds: Sequence[int], steps: int) -> Checkpoint:
        """Return the moment before the first step of a run."""
        scheduler = self._begin(steps)
        generators = [torch.Generator().manual_seed(s) for s in seeds]
        latents = self._draw(generators) * getattr(scheduler, "init_noise_sigma", 1.0)
        return Checkpoint(0, latents, scheduler, tuple(g.get_state() for g in generators))

    def sample(
        self,
        prompts: Sequence[str | Prompt],
        *,
        seeds: Sequence[int],
        steps: int = 20,
        guidance: float | None = None,
        negative: str | Sequence[Prompt] = "",
        start: Checkpoint | None = None,
    ) -> Iterator[State]:
        """Yield the state after each step, so that watching needs no callback.

        Equals the diffusers pipeline to the bit. Nothing is decoded, and gradients flow if they are on.

        Args:
            prompts: one text (or encoded Prompt) for each sample.
            seeds: one seed for each sample; row i depends on seed i alone.
            steps: number of steps.
            guidance: guidance scale; 1 or less samples without guidance. None is the model's default.
            negative: the text of the unconditional branch, or its encoded Prompts.
            start: go on from here instead of from noise.

        Raises:
            ValueError: for steps below 1, guidance below 0, NaN, or seeds that do not fit the prompts.
        """
        guidance = self.default_guidance if guidance is None else guidance
        check_run(len(prompts), seeds, steps, guidance)
        start = start or self.start(seeds, steps)
        told = self.prompts(prompts)
        null: Sequence[Prompt] = []
        if self.guides(guidance):
            null = self.null(negative, len(told)) if isinstance(negative, str) else list(negative)
        generators = [torch.Generator().set_state(s) for s in start.noise_states]
        x, scheduler, known = start.latents, copy.deepcopy(start.scheduler), start.free
        for i, t in list(enumerate(scheduler.timesteps))[start.index :]:
            step = Step(i, float(t), noise_level(scheduler, i))
            seen = scaled(scheduler, x, t)
            free, output = self.branches(seen, step, told, null, guidance=guidance, free=known)
            if free is not None:
                output = self.combine(free, output, guidance)
            known = None
            x = scheduler.step(output, t, x, return_dict=False, **step_kwargs(scheduler, generators))[0]
            yield State(step, x, seen, output, free, (scheduler, generators))

    def text_branch(self, ids: Tensor, nth: int) -> Branch:  # noqa: ARG002 - others look at the tokens
        """Return what the nth call of a text encoder inside the pipeline reads, given its token ids."""
        return "uncond" if nth % 2 else "cond"

    def null(self, text: str, n: int) -> list[Prompt]:
        """Return what n rows of the unconditional branch read."""
        return self.encode([text] * n, "uncond")

    def prompts(self, prompts: Sequence[str | Prompt]) -> list[Prompt]:
        """Encode those that are still texts, in one batch."""
        texts = [p for p in prompts if isinstance(p, str)]
        encoded = iter(self.encode(texts)) if texts else iter(())
        return [next(encoded) if isinstance(p, str) else p for p in prompts]

    def during(self, now: Now) -> _During:
        """Set ``now`` for the length of a with block: what hooks may know about the call they sit in."""
        return _During(self, now)

    # one conversion between the things a network may predict ------------------------------------------

    def _scales(self, step: Step) -> tuple[float, float]:
        """A and s of ``x_t = a x_0 + s eps``: a² + s² = 1, or a + s = 1 in flow matching."""
        if is_flow(self.scheduler):
            a = 1 / (1 + step.sigma)
            return a, 1 - a
        a = 1 / math.sqrt(1 + step.sigma**2)
        return a, step.sigma * a

    def to_x0(self, seen: Tensor, output: Tensor, step: Step) -> Tensor:
        """The clean latents implied by a network output."""
        a, s = self._scales(step)
        kind = "flow" if is_flow(self.scheduler) else self.scheduler.config.prediction_type
        if kind == "flow":  # the output is eps - x_0
            return seen - s * output
        if kind == "epsilon":
            return (seen - s * output) / a
        if kind == "v_prediction":
            return a * seen - s * output
        return output

    def to_eps(self, seen: Tensor, output: Tensor, step: Step) -> Tensor:
        """The noise implied by a network output."""
        a, s = self._scales(step)
        return (seen - a * self.to_x0(seen, output, step)) / s

    def to_v(self, seen: Tensor, output: Tensor, step: Step) -> Tensor:
        """The velocity ``a eps - s x_0`` implied by a network output (Salimans & Ho 2022)."""
        a, s = self._scales(step)
        return a * self.to_eps(seen, output, step) - s * self.to_x0(seen, output, step)


class _During:
    """Context that sets ``model.now`` and puts the old one back, error or not."""

    def __init__(self, model: Model, now: Now) -> None:
        self.model, self.now = model, now

    def __enter__(self) -> None:
        self.before, self.model.now = self.model.now, self.now

    def __exit__(self, *_: object) -> None:
        self.model.now = self.before


def check_run(n_prompts: int, seeds: Sequence[int], steps: int, guidance: float) -> None:
    """Raise ValueError or TypeError, with the fix, if a run cannot be made."""
    if isinstance(seeds, int):
        raise TypeError(f"seeds is the single number {seeds}; give one for each prompt: [{seeds}]")
    if not n_prompts or len(seeds) != n_prompts:
        raise ValueError(f"{n_prompts} prompts but {len(seeds)} seeds; give one seed for each prompt")
    if steps < 1:
        raise ValueError(f"steps is {steps}; a run needs at least 1")
    if not guidance >= 0 or math.isinf(guidance):
        raise ValueError(f"guidance is {guidance}; it is a number from 0 up (1 or less: no guidance)")


__all__ = ["Checkpoint", "Model", "Prompt", "State", "check_run"]
