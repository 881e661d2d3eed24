"""What a family of models fills in, and what follows from it: text, noise, calls."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .arguments import checked
from .errors import NotFoundError, StateError, UsageError
from .formats import compute_device, compute_dtype
from .places.account import Account
from .places.live import Live
from .run.context import TEXT, Branch, Call
from .run.levels import Step
from .run.noise import gaussian, generators
from .run.schedule import Schedule, begin
from .site import Site
from .structure import Structure
from .text.encoders import Reading, read
from .text.options import chosen_options
from .text.prompt import Prompt, Words

LARGEST = 2**16
"""Pixels of a picture's side that nobody means to exceed."""


class Adapter(Structure):
    """A pipeline, opened. A family's adapter fills in encode, predict, noise shape and decode.

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
    branch_order: tuple[Branch, ...] = ("uncond", "cond")
    """How guidance branches lie in the batch; others come after these."""
    cfg_in_two_passes = False
    """Whether the guidance branches are calls of their own, the conditional one first."""
    tells_guidance = False
    """Whether a scale is told to the network, or ignored, so that only a true scale makes branches."""
    true_cfg_scale = 1.0
    """The scale of true guidance where the other one is told to the network."""
    time_scale = 1.0
    """How many of the scheduler's times are one of what the network is told."""
    told_sizes = False  # whether the network is told sizes and crops of pictures, which a run may set
    loaded: Mapping[str, Any] | None = None
    """What ``load`` was given, but for the device; None for a model that was opened from an object."""
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
        self.live = Live()
        self.size = self._checked_size(size)
        self.places()

    def __repr__(self) -> str:
        parts = [f"{k}: {type(m).__name__}" for k, m in self.components.items()]
        return f"{type(self).__name__}({self.name!r}; {', '.join(parts)}; {type(self.scheduler).__name__})"

    # what a family fills in ---------------------------------------------------------------------------

    @property
    @abstractmethod
    def denoiser(self) -> nn.Module:
        """The network that is called at every step."""

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
            raise UsageError(f"size is {size}, but {self.name} paints no pictures; leave it out")
        if len(size) != 2 or any(not unit <= s <= LARGEST or s % unit for s in size):
            raise UsageError(
                f"size is {size}; {self.name} paints (height, width) in multiples of {unit} pixels, "
                f"for example {self.native_size}"
            )
        return (int(size[0]), int(size[1]))

    @property
    def input_site(self) -> Site:
        """The one place through which the noisy latents enter the network."""
        return Site("unet/in/conv.out")

    @abstractmethod
    def _encode(self, texts: Sequence[str]) -> list[Prompt]: ...

    @abstractmethod
    def predict(self, x: Tensor, step: Step | Sequence[Step], prompts: Sequence[Prompt]) -> Tensor:
        """The network's own output for network inputs x [sample, ...]; differentiable.

        ``step`` is one for all rows, or one a row; ``self.time(step, ...)`` turns either into a tensor.
        """

    @abstractmethod
    def decode(self, latents: Tensor) -> Float[Tensor, "sample ..."]:
        """Turn final latents into pictures [sample, channel, height, width] in 0..1; differentiable."""

    @abstractmethod
    def run_pipeline(
        self, prompts: Sequence[str], generators: list[torch.Generator], steps: int, guidance: float
    ) -> Float[Tensor, "sample ..."]:
        """Pictures from the diffusers pipeline's own loop; what ours is checked against."""

    # calls --------------------------------------------------------------------------------------------

    @property
    def call(self) -> Call | None:
        """The call of a network that is going on, or None."""
        return self.live.call

    @contextmanager
    def calling(self, call: Call) -> Iterator[None]:
        """Say what a call of a network is, for as long as it lasts: which rows are whose."""
        self.places()  # what is watched is where it was
        with self.live.calling(call):
            yield

    @contextmanager
    def accounted(self, account: Account) -> Iterator[None]:
        """Compare every call of the context with what an account expects."""
        with self.live.accounted(account):
            yield

    # text and noise -----------------------------------------------------------------------------------

    @property
    def scheduler(self) -> Any:
        """The pipeline's scheduler; runs work on copies of it."""
        return self.pipe.scheduler

    @property
    def device(self) -> torch.device:
        """Where the denoiser computes; with offloading its weights may rest elsewhere."""
        return compute_device(self.denoiser)

    @property
    def dtype(self) -> torch.dtype:
        """The number format that the denoiser computes in, however its weights are stored."""
        return compute_dtype(self.denoiser)

    @checked
    def encode(
        self, texts: Sequence[str], branch: Branch = "cond", samples: Sequence[int] = (), **how: Any
    ) -> list[Prompt]:
        """Encode texts in one batch; sites in text encoders see this call, as rows of ``branch``.

        Args:
            texts: what is written.
            branch: who reads them.
            samples: which samples of a run they belong to; by default 0, 1, ...
            **how: ``clip_skip`` and ``long_prompts``, as in ``Sampling``.
        """
        self._check_encoder()
        options = chosen_options(self._encode, self.name, how)
        if not len(texts):
            return []
        call = Call(
            TEXT,
            {branch: slice(0, len(texts))},
            prompts={branch: [Words(t, ()) for t in texts]},
            samples=tuple(samples),
            layers_read=self.layers_read(options.get("clip_skip")),
        )
        with self.calling(call):
            made = self._encode(list(texts), **options)
        return [replace(p, clip_skip=options.get("clip_skip")) for p in made] if options else made

    @checked
    def layers_read(self, clip_skip: int | None = None) -> Mapping[str, int]:  # noqa: ARG002 - some take it
        """How many layers of its text encoders the denoiser reads, by component, where it is not all.

        Args:
            clip_skip: as in ``Sampling``.
        """
        return {}

    def _read(self, encoder: str, texts: Sequence[str], limit: int, **how: Any) -> Reading:
        """Cut texts into the tokens of an encoder that is called next; see ``text.encoders.read``."""
        reading = read(self._tokenizer(encoder), texts, limit, self.name, **how)
        self.live.reading(encoder, reading.words)
        return reading

    def _tokenizer(self, encoder: str) -> Any:
        tokenizer = getattr(self.pipe, encoder.replace(TEXT, "tokenizer"))
        if tokenizer is None or encoder not in self.text_encoders:
            raise NotFoundError(
                f"{self.name} has no {encoder} now, so it reads no texts; put it back, or give Prompts "
                "that were encoded before it was taken away"
            )
        return tokenizer

    def _check_encoder(self) -> None:
        """Raise StateError if the text encoder was taken away, to save memory."""
        if TEXT in self._parts() and not self.text_encoders:
            raise StateError(
                f"{self.name} has no {TEXT} now, so it reads no texts; give Prompts that were encoded before "
                "it was taken away, and negative=[Prompt, ...] too where there is guidance"
            )

    def negative(
        self, texts: Sequence[str], branch: Branch = "uncond", samples: Sequence[int] = (), **how: Any
    ) -> list[Prompt]:
        """Return what rows of the unconditional branch read: negative texts, or no text."""
        return self.encode(texts, branch, samples, **how)

    @checked
    def noise(self, seeds: Sequence[int]) -> Tensor:
        """Return unit Gaussian starting noise [sample, ...]; row i depends on seed i alone."""
        return self._draw(generators(seeds))

    def _draw(self, generators: Sequence[torch.Generator]) -> Tensor:
        return gaussian(generators, self.latent_shape, self.dtype).to(self.device)

    def _begin(self, schedule: Schedule) -> Any:
        return begin(self.scheduler, schedule, self.device)

    def _told_scale(self) -> float:
        """The scale of the call, for networks that are told it; where its guidance says none, the model's.

        Raises:
            StateError: outside a call, where nobody says it.
        """
        if self.call is None:
            raise StateError(
                f"{self.name} is told its guidance, which predict() does not take; "
                "model.denoise(x, step, prompts, guidance=...) does"
            )
        told = self.call.guidance_scale
        return self.default_guidance if told is None else told

    def time(self, step: Step | Sequence[Step], rows: int | None = None) -> Tensor:
        """What the network is told about the time: a scalar, or one for each of so many rows."""
        if not isinstance(step, Step):
            return torch.stack([self.time(s) for s in step])
        kind = torch.int64 if float(step.t).is_integer() else torch.float32
        t = torch.full((), step.t, dtype=kind, device=self.device)  # made there: a copy would be waited for
        return t if rows is None else t.expand(rows)

    @checked
    def sized(self, size: tuple[int, int] | None) -> Self:
        """Return the same model, painting pictures of another height and width."""
        if size is None or size == self.size:
            return self
        other = copy.copy(self)
        other.size = other._checked_size(size)
        return other
