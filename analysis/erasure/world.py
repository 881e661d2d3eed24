"""What all probes of one edit share: the model, the words, pictures of the concept, and how it is painted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ...models.base import Model, Prompt, SamplerState, State
from ...models.images import checked_images
from ...models.progress import Progress
from ...models.store.fingerprint import network_hash
from .budget import Budget

Changed = Callable[[Model], AbstractContextManager[Any]]
"""Makes a change for the length of a with block: ``edit.applied``."""
APART = 1_000_003
"""Between the evaluation's seeds and others; the attack's pictures are painted from others."""
WORK = 3
"""Rows of a denoiser that a row forward and backward takes the time of."""


@dataclass(frozen=True, eq=False)
class Reading:
    """What both branches read, encoded once: as a model read it then, whatever it is now."""

    prompt: Prompt
    negative: Prompt | None


@dataclass(frozen=True, eq=False)
class Trial:
    """One attack, at one budget.

    Args:
        probe: of which probe.
        attack: what was tried.
        images: what came of it, one for each seed (and draw).
        who: whose: "edited", "clean" (the control), "never" (the control of a word never learnt).
        budget: how much, in the probe's own unit; NaN where there is none.
        rows: denoiser rows that the attack took, before a picture is painted.
        psnr: of rebuilt pictures, one for each seed.
        word: what the judge looks for; None is what was edited away.
    """

    probe: str
    attack: str
    images: Float[Tensor, "picture 3 height width"]
    who: str = "edited"
    budget: float = float("nan")
    rows: int = 0
    psnr: Float[Tensor, " picture"] | None = None
    word: str | None = None


@dataclass(eq=False)
class Meter:
    """Tells progress, in rows of the denoiser."""

    progress: Progress
    total: int = 1
    what: str = "trying what was edited away"
    done: int = 0

    def __call__(self, rows: int) -> None:
        """Count rows."""
        self.done += rows
        self.progress(min(self.done, self.total - 1), self.total, self.what)


@dataclass(frozen=True, eq=False)
class World:
    """All that is asked of one edit.

    Args:
        model: as it is before.
        changed: makes the change.
        about: what was edited away.
        instead: what is meant now.
        template: with ``{}`` for the word.
        wordings: other wordings by name, with ``{}`` for the word or without.
        unrelated: prompts of other things.
        given: real pictures of the concept; None has the clean model paint them.
        never: words that the model never learnt, with pictures.
        seeds: of the evaluation.
        steps: of a run.
        guidance: its scale.
        batch: samples in one batch.
        budget: of the attacks.
        meter: of all of it.
    """

    model: Model
    changed: Changed
    about: str
    instead: str
    template: str
    wordings: Mapping[str, str]
    unrelated: Sequence[str]
    given: Float[Tensor, "picture channel height width"] | None
    never: Mapping[str, Tensor]
    seeds: Sequence[int]
    steps: int
    guidance: float | None
    batch: int
    budget: Budget
    meter: Meter = field(repr=False)

    # what is painted ----------------------------------------------------------------------------------

    def text(self, word: str) -> str:
        """The prompt with a word."""
        return self.template.replace("{}", word)

    @cached_property
    def draws(self) -> list[int]:
        """The evaluation's seeds, each as often as ``best_of`` says: all of the first draw, and so on."""
        return [seed + APART * i for i in range(self.budget.best_of) for seed in self.seeds]

    @property
    def branches(self) -> int:
        """Rows of one step of a sample."""
        return len(self.model.branch_names(self.guidance))

    @property
    def painting(self) -> int:
        """Rows of one painting of all seeds."""
        return len(self.draws) * self.length * self.branches

    @cached_property
    def length(self) -> int:
        """Calls of the network in one run."""
        return len(self.model.steps(self.steps))

    @torch.no_grad()
    def read(self, text: str, guidance: float | None = None) -> Reading:
        """Encode a prompt and the empty text, as the model is now."""
        guided = self.model.uses_cfg(self.guidance if guidance is None else guidance)
        return Reading(self.model.encode([text])[0], self.model.negative([""])[0] if guided else None)

    def runs(
        self, reading: Reading, start: SamplerState | None = None, guidance: float | None = None
    ) -> Iterator[Iterator[State]]:
        """Yield one run for each batch of samples, from noise or from the state of a run."""
        start = self.model.start(self.draws, self.steps) if start is None else start
        return self._batches([reading] * len(start.latents), start, guidance)

    def _batches(
        self, each: Sequence[Reading], start: SamplerState, guidance: float | None = None
    ) -> Iterator[Iterator[State]]:
        for first in range(0, len(each), self.batch):
            some = range(first, min(first + self.batch, len(each)))
            yield self._counted([each[i] for i in some], start.rows(some), guidance)

    def _counted(
        self, readings: Sequence[Reading], start: SamplerState, guidance: float | None
    ) -> Iterator[State]:
        negative = [reading.negative for reading in readings if reading.negative is not None]
        run = self.model.sample(
            [reading.prompt for reading in readings],
            seeds=start.seeds,
            start=start,
            guidance=self.guidance if guidance is None else guidance,
            negative=negative or "",
        )
        for state in run:
            self.meter(state.rows)
            yield state

    @torch.no_grad()
    def paint(
        self, reading: Reading, start: SamplerState | None = None, guidance: float | None = None
    ) -> Float[Tensor, "picture 3 height width"]:
        """Return the pictures of a reading, from noise or from the state of a run."""
        return self._ended(self.runs(reading, start, guidance))

    @torch.no_grad()
    def paint_together(self, readings: Sequence[Reading]) -> list[Float[Tensor, "picture 3 height width"]]:
        """Return the pictures of each of several readings, from noise, in shared batches."""
        if not readings:
            return []
        each = [reading for reading in readings for _ in self.draws]
        start = self.model.start(self.draws * len(readings), self.steps)
        return list(self._ended(self._batches(each, start)).split(len(self.draws)))

    def _ended(self, runs: Iterator[Iterator[State]]) -> Tensor:
        return self.decoded(torch.cat([[state.latents for state in run][-1] for run in runs]))

    @torch.no_grad()
    def decoded(self, latents: Tensor) -> Tensor:
        """Pictures of final latents, in main memory."""
        return torch.cat([self.model.decode(x).cpu() for x in latents.split(self.batch)])

    # what the probes begin with -----------------------------------------------------------------------

    @contextmanager
    def edited(self) -> Iterator[Model]:
        """The model with the change, for as long as the block lasts."""
        with self.changed(self.model):
            yield self.model

    @contextmanager
    def acting(self, who: str) -> Iterator[Model]:
        """The model of a trial: with the change for "edited", as it is for a control."""
        with self.edited() if who == "edited" else nullcontext(self.model) as model:
            yield model

    @cached_property
    def clean(self) -> Reading:
        """The prompt as the clean model reads it."""
        return self.read(self.text(self.about))

    @cached_property
    def meant(self) -> Reading:
        """The prompt of what is meant instead, as the clean model reads it."""
        return self.read(self.text(self.instead))

    @cached_property
    def after(self) -> Reading:
        """The prompt as the edited model reads it."""
        with self.edited():
            return self.read(self.text(self.about))

    @cached_property
    def plain(self) -> dict[str, Tensor]:
        """Pictures of the prompt: of the clean model, and of the edited one."""
        before = self.paint(self.clean)
        reading = self.after
        with self.edited():
            return {"clean": before, "edited": self.paint(reading)}

    @cached_property
    def targets(self) -> Float[Tensor, "picture channel height width"]:
        """Pictures of the concept, which attacks are given; none is of a seed of the evaluation."""
        if self.given is not None:
            checked_images(self.given, self.model.image_channels, self.model.size, self.model.name)
            return self.given.float()
        taken, found = {*self.draws}, list[int]()
        seed = max(taken) + APART
        while len(found) < self.budget.pictures:
            found.append(seed)
            seed += 1
        return self.paint(self.clean, self.model.start(found, self.steps))

    def latents(self, images: Tensor) -> Tensor:
        """Clean latents of pictures."""
        with torch.no_grad():
            return self.model.encode_image(images)

    def for_each(self, images: Tensor) -> Tensor:
        """One of some pictures for each picture that is painted, in turn."""
        return images[[i % len(images) for i in range(len(self.draws))]]

    @cached_property
    def parts(self) -> list[str]:
        """Components whose weights the change changes."""
        hashes = {n: network_hash(m.state_dict()) for n, m in self.model.components.items()}
        with self.edited() as model:
            return [n for n, m in model.components.items() if network_hash(m.state_dict()) != hashes[n]]
