"""A store of activations while it is filled: where each row goes, and how far it is."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...models.arguments import batches
from ...models.base import Model
from ...models.errors import FileInTheWayError, StateError, UsageError
from ...models.run.context import TEXT, CallContext, When
from ...models.site import Site
from ...models.store.canonical import plain_json
from ...models.store.disk import write_bytes
from ...models.store.sealed import seal
from ..intervene import Intervention
from ..keep import WARN_BYTES, check_holds
from ..stored import variable
from .activations import FILLING, KIND, arrays, cut_off
from .channels import as_rows

log = logging.getLogger("denoscope")
HELD = 20
"""One sample in so many is held out."""


@dataclass
class Filler:
    """A store while it is filled.

    Args:
        model: whose activations.
        folder: of the store.
        about: what the store will tell of itself.
        samples: how many there are to be.
        batch: samples in one batch.
        wanted: its sites.
        finished: samples that are whole.
        sites: what is known of each site, once it was seen.
    """

    model: Model
    folder: Path
    about: dict[str, Any]
    samples: int
    batch: int
    wanted: tuple[Site, ...]
    finished: int = 0
    sites: dict[str, Any] = field(default_factory=dict)
    open: dict[Site, tuple[Any, Any, Tensor]] = field(default_factory=dict)

    @classmethod
    def begun(
        cls,
        model: Model,
        folder: Path,
        sites: Sequence[Site],
        about: dict[str, Any],
        *,
        samples: int,
        batch: int,
    ) -> Filler:
        """Begin, or go on where another one was cut off."""
        found = cut_off(folder)
        if found is None:
            batches(samples, batch)  # checks it
            for site in sites:
                (folder / variable(site)).mkdir(parents=True)
            made = cls(model, folder, about, samples, batch, tuple(sites))
            made.save(0)
            return made
        check_same(folder, found, about)
        if sorted(found["wanted"]) != sorted(map(str, sites)):
            raise UsageError(
                f"{folder} was cut off while it was filled with {', '.join(found['wanted'])}; ask for the "
                "same sites, or delete it"
            )
        log.info("going on from sample %d of %d", found["done"], samples)
        return cls(model, folder, about, samples, found["batch"], tuple(sites), found["done"], found["sites"])

    @property
    def left(self) -> list[slice]:
        """The batches that are still to be made."""
        return [b for b in batches(self.samples, self.batch) if b.start >= self.finished]

    @property
    def held(self) -> int:
        """How many samples are held out."""
        return 0 if self.samples < 2 else max(1, self.samples // HELD)

    def watching(self, site: Site, first: int, when: When) -> Intervention:
        """Return what writes the activations of a site, of a batch that begins with a sample."""
        has_steps = not site.component.startswith(TEXT)
        place = {index: i for i, (index, *_) in enumerate(self.about["steps"])} if has_steps else {}

        def keep(x: Tensor, context: CallContext) -> None:
            step = 0 if context.index is None else place[context.index]
            self.add(site, x.detach(), [first + s for s in context.samples], step, max(1, len(place)))

        return Intervention(site, keep, when if has_steps else replace(when, steps=None))

    def add(self, site: Site, x: Tensor, samples: Sequence[int], step: int, n_steps: int) -> None:
        """Write an activation [row, ...] of some samples at a step."""
        check_holds(site, x, getattr(torch, self.about["dtype"]))
        if not bool(x.isfinite().all()):
            raise StateError(
                f"activations at {site} are not finite, at step {step}; nothing can be learned there"
            )
        rows = as_rows(x, self.axes(site), self.about["kernel"])
        rows = rows.reshape(len(samples), -1, rows.shape[-1])
        values, steps, order = self._arrays(site, rows.shape[1] * n_steps, x.shape[1:], rows.shape[-1])
        at = torch.tensor(samples)[:, None] * rows.shape[1] * n_steps + step * rows.shape[1]
        slots = order[at + torch.arange(rows.shape[1])].reshape(-1).numpy()
        values[slots] = rows.reshape(len(slots), -1).float().cpu().numpy().astype(values.dtype)
        steps[slots] = step

    def axes(self, site: Site) -> tuple[str, ...]:
        """Return the axes of one sample at a site."""
        axes = self.model.layout(site).axes
        if "channel" not in axes:
            raise UsageError(f"{site} has axes {axes}, so no channels for a dictionary to be over")
        return axes

    def _arrays(
        self, site: Site, of_one: int, shape: Sequence[int], channels: int
    ) -> tuple[Any, Any, Tensor]:
        """The arrays of a site, and the slot of each row; made when it is seen first."""
        if site not in self.open:
            n, held = self.samples * of_one, self.held * of_one
            fresh = str(site) not in self.sites
            self.sites[str(site)] = {
                "axes": list(self.axes(site)),
                "grid": list(shape),
                "channels": channels,
                "rows": n,
                "held": held,
            }
            order = torch.cat([_shuffled(n - held), n - held + _shuffled(held)])
            mode = "w+" if fresh else "r+"
            files = arrays(self.folder, site, self.sites[str(site)], self.about["dtype"], mode)
            self.open[site] = (*files, order)
            size = sum(f.nbytes for f in files)
            log.log(
                logging.WARNING if size >= WARN_BYTES else logging.INFO,
                "the store keeps %.1f MB of %s (dtype=, When(steps=) keep less)",
                size / 1e6,
                site,
            )
        return self.open[site]

    def save(self, done: int) -> None:
        """Note that so many samples are whole, once they are on disk."""
        for values, steps, _ in self.open.values():
            values.flush()
            steps.flush()
        note = {"samples": self.samples, "batch": self.batch, "done": done, "sites": self.sites}
        text = json.dumps({**self.about, **note, "wanted": [str(s) for s in self.wanted]})
        write_bytes(self.folder / FILLING, text.encode())

    def close(self) -> None:
        """Write the manifest; the store is whole."""
        self.open.clear()
        seal(self.folder, KIND, {**self.about, "sites": self.sites})
        (self.folder / FILLING).unlink()


def _shuffled(n: int) -> Tensor:
    return torch.randperm(n, generator=torch.Generator().manual_seed(n))


def check_free(folder: Path) -> None:
    """Raise FileInTheWayError if a folder holds anything but a store that was cut off."""
    if folder.exists() and any(folder.iterdir()) and cut_off(folder) is None:
        raise FileInTheWayError(f"{folder} holds something else; name a new folder, or delete it")


def check_same(folder: Path, held: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise UsageError if a store is not of such a run; the message says what differs."""
    there, here = ({**a["identity"], **{k: a[k] for k in ("kernel", "dtype", "steps")}} for a in (held, now))
    other = [k for k in here if plain_json(here[k], k) != there.get(k)]
    if other:
        told = "; ".join(f"{k} was {_short(there.get(k))}, is {_short(here[k])}" for k in other)
        raise UsageError(
            f"{folder} holds activations of something else: {told}. Name a new folder, or delete it"
        )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
