"""Look at features of a dictionary one by one: where they are on, what they tell, what editing them does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from ..analysis.mediation.runs import check_each_once
from ..models.arguments import batches, checked
from ..models.base import Model, Prompt, check_run
from ..models.errors import UsageError
from ..models.images import to_array
from ..models.judges.labelled import Labelled
from ..models.progress import Progress, showing
from ..models.run.sampling import Sampling, SamplingOptions
from ..models.store.provenance import provenance
from ..probes.dictionary import Dictionary
from ..probes.dictionary.codes import check_features
from ..probes.sweep.sweeping import SweepRun, sweep
from .gathering import Seen, gathered
from .result import Atlas
from .telling import named, tells

SCALES = (0.0, 2.0, 5.0)
"""Off, twice and five times as strong."""
TOP = 6
"""Pictures of each feature."""
FEWEST = 2 * TOP


@checked
def browse_features(  # noqa: PLR0913  # one experiment, all its settings by name
    model: Model,
    dictionary: Dictionary,
    prompts: Sequence[str] | None = None,
    *,
    seeds: Sequence[int],
    features: int | Sequence[int] = 24,
    judge: Labelled | None = None,
    batch: int = 16,
    progress: Progress | None = None,
    **settings: Unpack[SamplingOptions],
) -> Atlas:
    """Sample, and say of features where they are on, what they tell and what editing them does.

    For each feature: the pictures in which it is strongest, with a map of its mean strength over the steps;
    the words of prompts and the labels of a judge that it tells best, chosen on one half of the samples and
    measured on the other; its strength at each step; and the picture in which it is strongest again, with
    the feature off, twice and five times as strong in all steps.

    Args:
        model: an opened model.
        dictionary: of one of its sites.
        prompts: one for each sample; leave out for an unconditional model.
        seeds: one for each sample, at least twelve; others than the dictionary was trained on.
        features: which, or how many: then those whose activity differs most between samples.
        judge: whose labels are asked; one with attributes, as from ``load_judge``; None asks words alone.
        batch: samples in one batch.
        progress: called with (done, total, what); without it a bar comes by itself.
        **settings: how it is sampled, as in ``Sampling``.

    Raises:
        ValueError: for too few samples, features that are not there, and a dictionary of another model.
        LookupError: if the model does not have the dictionary's site.
    """
    texts = [""] * len(seeds) if prompts is None else list(prompts)
    _check(model, dictionary, texts, seeds)
    how = Sampling(**settings)
    model = model.sized(how.size)
    wanted = _wanted(features, dictionary.width)
    with torch.no_grad(), showing(progress) as show:
        seen = gathered(
            model, dictionary, texts, seeds, judge=judge, batch=batch, progress=show, settings=settings
        )
        activity, profile, density = seen.activity()
        chosen = wanted or np.argsort(-activity.std(0), kind="stable")[:features].tolist()
        top = np.argsort(-activity[:, chosen], axis=0, kind="stable")[:TOP].T
        shown: dict[str, Any] = _edited(model, dictionary, chosen, [(texts[i], seeds[i]) for i in top[:, 0]],
                                        batch, show, settings)  # fmt: skip
    shown |= {
        "activity": (("feature", "sample"), activity[:, chosen].T),
        "profile": (("feature", "step"), profile[:, chosen].T),
        "density": (("feature",), density[chosen]),
        "top": (("feature", "place"), top),
        "pictures": (("sample", "row", "column", "channel"), seen.pictures),
        "prompt": (("sample",), texts),
    }
    maps = _maps(model, dictionary, seen, chosen, top)
    if maps is not None:
        shown["maps"] = (("feature", "place", "y", "x"), maps)
    frame = tells(activity, chosen, named(texts, seen.said))
    shown |= {f"tells_{name}": (("line",), _plain(frame[name].to_numpy())) for name in frame}
    coords = {
        "feature": chosen,
        "step": list(seen.steps),
        "seed": ("sample", list(seeds)),
        "scale": list(SCALES),
    }
    about = provenance(model, **how.described(model), method="browse_features", site=str(dictionary.site),
                       dictionary=repr(dictionary), width=dictionary.width)  # fmt: skip
    return Atlas(xr.Dataset(shown, coords, attrs=about))


def _check(model: Model, dictionary: Dictionary, texts: Sequence[str], seeds: Sequence[int]) -> None:
    check_run(len(texts), seeds)
    check_each_once("samples", [f"{seed} {text}" for seed, text in zip(seeds, texts, strict=True)])
    if len(seeds) < FEWEST or not dictionary.channels.has_steps:
        raise UsageError(
            f"{len(seeds)} samples, dictionary of {dictionary.site}; give {FEWEST} seeds or more, and a "
            "dictionary of a site that runs at each step"
        )
    dictionary.check(model)


def _wanted(features: int | Sequence[int], width: int) -> list[int]:
    """Features that were named; empty where a number of them was."""
    if isinstance(features, int):
        if not 1 <= features <= width:
            raise UsageError(f"features is {features}; the dictionary has {width}: give 1 to {width}")
        return []
    return check_features(features, width)


def _plain(values: NDArray[Any]) -> NDArray[Any]:
    return values.astype(str) if values.dtype == object else values


def _edited(  # noqa: PLR0917  # one run
    model: Model,
    dictionary: Dictionary,
    features: Sequence[int],
    samples: Sequence[tuple[str | Prompt, int]],
    batch: int,
    show: Progress,
    settings: SamplingOptions,
) -> dict[str, Any]:
    """The sample of each feature with the feature at each scale, and how far its latents moved."""
    plain = [SweepRun(prompt, seed) for prompt, seed in samples]
    runs = [
        SweepRun(prompt, seed, (dictionary.edit(feature, scale=scale),))
        for feature, (prompt, seed) in zip(features, samples, strict=True)
        for scale in SCALES
    ]
    latents = sweep(model, [*plain, *runs], batch=batch, progress=show, **settings).latents
    before, after = latents[: len(plain)], latents[len(plain) :].unflatten(0, (len(plain), len(SCALES)))
    moved = (after - before[:, None]).square().flatten(2).mean(2).sqrt()
    flat = after.flatten(0, 1)
    images = torch.cat([model.decode(flat[some]) for some in batches(len(flat), batch)])
    pictures = to_array(images).values
    over = ("feature", "scale", "row", "column", "channel")
    return {
        "edited": (over, pictures.reshape(len(features), len(SCALES), *pictures.shape[1:])),
        "moved": (("feature", "scale"), moved.double().cpu().numpy()),
    }


def _maps(
    model: Model, dictionary: Dictionary, seen: Seen, features: Sequence[int], top: NDArray[np.int64]
) -> NDArray[np.float32] | None:
    """Maps [feature, place, y, x] of the strongest samples; None where positions are no picture."""
    layout = model.layout(dictionary.site)
    if layout.grid is None or dictionary.channels.kernel == "map":
        return None
    found = seen.maps(features)
    if layout.axes == ("token", "channel"):
        found = found[:, layout.picture]
    found = found.reshape(len(found), *layout.grid, len(features))
    return np.stack([found[rows, ..., i] for i, rows in enumerate(top)])


__all__ = ["browse_features"]
