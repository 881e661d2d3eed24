"""How deep does an edit go? From 0, all is still there, to 1, as in a model that never saw it.

Unlearning depth by patching (arXiv 2605.24614), carried over to pictures: what passes through one cut of a
model R that never saw the concept is put into the clean model F, and so is what passes there in the edited
model U. Where R's states take the concept away, the concept is carried; how much of that U's states take away
is how deep the edit goes there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from ...models.arguments import checked
from ...models.base import Model, Prompt
from ...models.errors import UsageError
from ...models.images import checked_images
from ...models.progress import Progress, showing
from ...models.run.prediction import wanted
from ...models.store.provenance import provenance
from ...probes.sweep.sweeping import SweepRun, sweep
from ..edit_evaluation.evaluate import described
from .cuts import denoiser_cuts, text_cuts
from .depth_result import Depth
from .sources import (
    Moment,
    Source,
    being,
    check_alike,
    denoised,
    middles,
    noised,
    patched_denoiser,
    patched_text,
    through_denoiser,
    through_text,
)
from .world import APART, Changed


@checked
def depth(
    model: Model,
    changed: Changed,
    retained: Source,
    prompts: Sequence[str],
    *,
    kept: Sequence[str],
    second: Source | None = None,
    seeds: Sequence[int] = range(8),
    pictures: Float[Tensor, "picture channel height width"] | None = None,
    bins: int = 4,
    steps: int = 20,
    guidance: float | None = None,
    progress: Progress | None = None,
) -> Depth:
    """Measure the depth of an edit against a model that never saw what was edited away.

    The denoiser is cut with the clean model's text rows, so what an edit does in front of it does not count
    there: depth is told for each component. All of it is unguided: one call of the network for each cut.

    Args:
        model: F, an opened model, as it is before.
        changed: makes the change for the length of a with block: ``edit.applied``.
        retained: R, a model of the same architecture that never saw the concept, or a change that makes it.
            Its coordinates must be F's: start its training from F's start, or from F.
        prompts: texts about the concept.
        kept: texts about other things, for the check of coordinates and the utility twin.
        second: F2, trained as R with nothing left out, whose states are the floor.
        seeds: each prompt is painted with each by the clean model; a unit of the intervals.
        pictures: real ones of the concept in place of these, one for each prompt and seed, in 0..1.
        bins: the run is looked at in the middle of so many equal parts.
        steps: of that run.
        guidance: of the runs that paint.
        progress: called with (done, total, what).

    Raises:
        ValueError: for no prompts, numbers that do not fit, and models of another architecture.

    >>> from denoscope.editing import uce
    >>> from denoscope.models.synthetic.tiny import tiny_sd
    >>> model = load(tiny_sd())
    >>> gone = uce(model, {"cat": "dog"})
    >>> found = depth(model, gone.applied, gone.applied, ["a cat"], kept=["a house"], seeds=[0, 1], steps=4)
    >>> round(float(found.to_frame(tolerance=1.0).set_index("component").loc["unet", "depth"]), 3)
    1.0
    """
    for name, texts in (("prompts", prompts), ("kept", kept), ("seeds", seeds)):
        if not len(texts) or len(set(texts)) != len(texts):
            raise UsageError(f"{name} is {list(texts)!r}; give at least one, each once")
    if not 1 <= bins <= steps:
        raise UsageError(f"bins is {bins}; it is 1 to {steps}, the number of steps")
    sources: dict[str, Source] = {"edited": changed, "retained": retained}
    sources |= {} if second is None else {"second": second}
    text, own = text_cuts(model), denoiser_cuts(model)
    for source in sources.values():
        check_alike(model, source, [s for sites in (*text.values(), *own.values()) for s in sites])
    painting = {"steps": steps, "guidance": guidance}
    with showing(progress) as show:
        asked = _moments(model, prompts, seeds, bins, painting=painting, pictures=pictures)
        others = _moments(
            model, kept, [seed + APART for seed in seeds], bins, painting=painting, pictures=None
        )
        work = _Depths(model, sources, text, own)
        found = []
        for i, (moment, other) in enumerate(zip(asked, others, strict=True)):
            found.append(work.measured(moment, other))
            show(i + 1, bins, "putting states in")
    about = provenance(model, change=described(changed), prompts=list(prompts), kept=list(kept))
    bin_of = xr.DataArray([m.step.log_snr for m in asked], dims="bin", name="log_snr")
    return Depth(xr.concat(found, "bin").assign_coords(log_snr=bin_of).assign_attrs(about))


@torch.no_grad()
def _moments(
    model: Model,
    texts: Sequence[str],
    seeds: Sequence[int],
    bins: int,
    *,
    painting: dict[str, Any],
    pictures: Tensor | None,
) -> list[Moment]:
    """Pictures of texts, half-noised: one moment for each bin of a run."""
    rows = [(text, seed) for text in texts for seed in seeds]
    if pictures is None:
        latents = sweep(model, [SweepRun(*row) for row in rows], **painting).latents
    else:
        checked_images(pictures, model.image_channels, model.size, model.name)
        if len(pictures) != len(rows):
            raise UsageError(f"{len(pictures)} pictures for {len(rows)} prompts and seeds; give one for each")
        latents = model.encode_image(pictures.float())
    found = []
    for i, step in enumerate(middles(model.steps(painting["steps"]), bins)):
        x, noise = noised(model, latents, step, [seed + APART * (i + 1) for _, seed in rows])
        aim = wanted(model.scheduler, latents, noise, step)
        found.append(Moment(step, x, aim, [text for text, _ in rows]))
    return found


@dataclass(frozen=True, eq=False)
class _Depths:
    """The calls of one moment: clean, whole sources, and each cut of the clean model with their states."""

    model: Model
    sources: dict[str, Source]
    text: dict[str, list[Any]]
    own: dict[str, list[Any]]

    def measured(self, moment: Moment, other: Moment) -> xr.Dataset:
        """Return all numbers of one bin, over pictures of the concept and over those of other things."""
        (outs, plain, whole), (k_outs, k_plain, _) = (self._said(m) for m in (moment, other))
        length = {c: _rows(((whole[_part(c)] - plain) ** 2).sum(1)) for c in (*self.text, *self.own)}
        wide = {c: whole[_part(c)] - plain for c in length}
        names = list(self.sources)
        data = {
            "along": [[_rows(((outs[s][c] - plain) * wide[c]).sum(1)) for c in wide] for s in names],
            "worse": [[_error(outs[s][c], moment) - _error(plain, moment) for c in wide] for s in names],
        }
        moved = {(s, c): ((k_outs[s][c] - k_plain) ** 2).sum(1) for s in names for c in wide}
        kept = {
            "kept_moved": [[_rows(moved[s, c]) for c in wide] for s in names],
            "kept_worse": [
                [_error(k_outs[s][c], other) - _error(k_plain, other) for c in wide] for s in names
            ],
        }
        coords = {"source": names, "cut": list(wide), "component": ("cut", [_part(c) for c in wide])}
        dims = ("source", "cut")
        variables: dict[str, tuple[tuple[str, ...], Any]] = {
            k: ((*dims, "picture"), np.array(v)) for k, v in data.items()
        }
        variables |= {k: ((*dims, "other"), np.array(v)) for k, v in kept.items()}
        variables["length"] = (("cut", "picture"), np.array(list(length.values())))
        return xr.Dataset(variables, coords)

    def _said(self, moment: Moment) -> tuple[dict[str, dict[str, Tensor]], Tensor, dict[str, Tensor]]:
        """By source and cut what the clean model says; what it says plainly; what R's components say."""
        sites = [site for some in self.text.values() for site in some]
        own = list(dict.fromkeys(site for some in self.own.values() for site in some))
        clean, _ = through_text(self.model, moment.texts, ())
        plain = denoised(self.model, moment, clean).flatten(1)
        outs, whole = dict[str, dict[str, Tensor]](), dict[str, Tensor]()
        for name, source in self.sources.items():
            with being(self.model, source) as acting:
                read, states = through_text(acting, moment.texts, sites)
                said, inner = through_denoiser(acting, moment, clean, own)
            if name == "retained":
                part = _part(next(iter(self.own)))
                whole = {part: said.flatten(1), "text": denoised(self.model, moment, read).flatten(1)}
            outs[name] = {c: self._text(moment, clean, some, states) for c, some in self.text.items()}
            for c, some in self.own.items():
                outs[name][c] = patched_denoiser(self.model, moment, clean, some, inner).flatten(1)
        return outs, plain, whole

    def _text(
        self, moment: Moment, clean: dict[str, Prompt], sites: Sequence[Any], states: dict[Any, Tensor]
    ) -> Tensor:
        read = patched_text(self.model, list(clean), sites, states)
        return denoised(self.model, moment, read).flatten(1)


def _part(cut: str) -> str:
    """The component of a cut; all text encoders are one, since the denoiser reads what they say together."""
    part = cut.partition("/")[0]
    return "text" if part.startswith("text_encoder") else part


def _error(said: Tensor, moment: Moment) -> np.ndarray[Any, Any]:
    """The error of what is said, [row]."""
    return _rows((said - moment.wanted.flatten(1)).square().mean(1))


def _rows(x: Tensor) -> np.ndarray[Any, Any]:
    return x.double().cpu().numpy()
