"""Fill a store of activations while a model samples: several sites in one pass over the generator."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Unpack

import torch

from ...models.arguments import checked
from ...models.base import Model, Prompt, check_run
from ...models.errors import UsageError
from ...models.progress import Progress, showing
from ...models.run.context import When
from ...models.run.sampling import Sampling, SamplingOptions
from ...models.site import Site
from ...models.store.canonical import json_hash
from ...models.store.fingerprint import tensor_hash
from ...models.store.lock import making
from ...models.store.provenance import provenance
from ...models.store.sealed import MANIFEST
from ..trace import expand
from .activations import ActivationStore
from .channels import Kernel
from .filling import Filler, check_free, check_same


@checked
def collect_activations(  # noqa: PLR0913 - what one run is, and what of it is kept
    model: Model,
    sites: Sequence[Site | str] | Site | str,
    prompts: Sequence[str | Prompt] | None = None,
    *,
    seeds: Sequence[int],
    store: str | Path,
    kernel: Kernel = "position",
    when: When = When(),
    dtype: Literal["float16", "float32"] = "float16",
    batch: int = 32,
    progress: Progress | None = None,
    **settings: Unpack[SamplingOptions],
) -> ActivationStore:
    """Sample, and write what passes through some sites to disk, in random order.

    A call that was stopped goes on with the sample where it stopped, when it is made again; a store that is
    whole and of this call is opened as it is. One sample in twenty, at least one of several, is held out.

    Args:
        model: an opened model.
        sites: sites, addresses or globs.
        prompts: one for each sample; leave out for an unconditional model.
        seeds: one for each sample.
        store: a folder.
        kernel: what becomes a row: each ``"position"``, or a whole ``"map"``.
        when: which steps and branch; one branch only.
        dtype: number format on disk.
        batch: samples in one batch.
        progress: called with (done, total, what); without it a bar comes by itself.
        **settings: how it is sampled, as in ``Sampling``: steps, guidance, negative, size.

    Raises:
        LookupError: for unknown sites, and sites whose axes are not known.
        ValueError: for sites without channels, values that the number format does not hold, a folder with a
            store of something else (the message says what differs), a damaged one.
        FileExistsError: if the folder holds something else.
        RuntimeError: if another process is filling it.
    """
    prompts = [""] * len(seeds) if prompts is None else prompts
    check_run(len(prompts), seeds)
    how, folder = Sampling(**settings), Path(store)
    model = model.sized(how.size)
    wanted, plan = expand(model, sites), model.steps(how)
    when.check(len(plan), len(prompts), model.branch_names(how.guidance))
    _check(when, kernel, dtype)
    about = {
        "identity": _identity(model, how, prompts, seeds, when),
        "kernel": kernel,
        "dtype": dtype,
        "steps": [[s.index, s.t, _plain(s.sigma)] for s in plan if s in when],
    }
    if (folder / MANIFEST).exists():
        return _same(ActivationStore.open(folder), about, wanted)
    check_free(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with torch.no_grad(), making(folder), showing(progress) as show:
        filler = Filler.begun(model, folder, wanted, about, samples=len(seeds), batch=batch)
        for some in filler.left:
            negative = how.negative if isinstance(how.negative, str) else how.negative[some]
            own = settings | {"negative": negative}
            watching = [filler.watching(site, some.start, when) for site in wanted]
            for _ in model.sample(prompts[some], seeds=seeds[some], interventions=watching, **own):
                pass  # what is wanted was written on the way
            filler.save(some.stop)
            show(some.stop, len(seeds), "sampling")
        filler.close()
    return ActivationStore.open(folder)


def _check(when: When, kernel: str, dtype: str) -> None:
    if when.branch is None or when.rows is not None:
        raise UsageError(f"a store keeps all samples of one guidance branch; {when} names another choice")
    if kernel not in ("position", "map") or dtype not in ("float16", "float32"):
        raise UsageError(
            f"kernel is {kernel!r}, dtype {dtype!r}; they are 'position' or 'map', 'float16' or 'float32'"
        )


def _identity(
    model: Model, how: Sampling, prompts: Sequence[str | Prompt], seeds: Sequence[int], when: When
) -> dict[str, Any]:
    """All that the activations depend on."""
    own = provenance(model, **how.described(model))
    steps = None if when.steps is None else sorted(when.steps)
    texts = [p if isinstance(p, str) else [p.text, tensor_hash(p.embeds)] for p in prompts]
    other = {"prompts": json_hash(texts), "seeds": list(seeds), "when": [steps, when.branch]}
    return {k: v for k, v in own.items() if k not in ("versions", "device")} | other


def _plain(sigma: float) -> float | str:
    return sigma if math.isfinite(sigma) else str(sigma)


def _same(found: ActivationStore, about: Mapping[str, Any], sites: Sequence[Site]) -> ActivationStore:
    check_same(found.folder, found.about, about)
    for site in sites:
        found.n_channels(site)  # raises for one that is not there
    return found
