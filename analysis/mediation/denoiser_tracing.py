"""Causal mediation in the denoiser: which activations carry a word into the picture (docs/mediation.md).

The same three kinds of runs as in a text encoder: clean, corrupted and restored; here one site is restored,
in one window of steps. Basu et al. 2024 (arXiv 2310.13730).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal

from ...models.arguments import checked
from ...models.base import Model
from ...models.errors import UsageError
from ...models.progress import Progress
from ...models.site import Site
from ..metrics import Metric
from .choice import denoiser_sites, neighbouring, pieces
from .corruption import Corruption, Noise
from .restoring import MEMORY, Plan, chosen_way
from .result import Mediation
from .runs import open_experiment
from .tracing import Tracing


@checked
def trace_denoiser(  # noqa: PLR0913  # one experiment, all its settings by name
    model: Model,
    prompts: Sequence[str],
    subject: str | Sequence[str],
    *,
    seeds: Sequence[int],
    metric: Metric,
    sites: Sequence[Site | str] | Site | str | None = None,
    windows: Sequence[Collection[int]] | None = None,
    heads: Sequence[int | Sequence[int]] | None = None,
    tokens: Sequence[int | Sequence[int]] | None = None,
    neighbours: int = 1,
    direct: bool = False,
    source: Literal["trajectory", "in_place"] = "trajectory",
    corruption: Corruption = Noise(),  # noqa: B008  # a frozen value
    steps: int = 20,
    guidance: float | None = None,
    batch: int = 16,
    memory: int = MEMORY,
    store: str | Path | None = None,
    progress: Progress | None = None,
) -> Mediation:
    """Restore one site of the denoiser at a time, in the guidance branch that reads the prompt.

    Args:
        model: an opened model with a text encoder.
        prompts: clean texts.
        subject: the words to take out, or one for each prompt.
        seeds: each prompt is run with each seed.
        metric: scores finished runs (``analysis.metrics``).
        sites: sites, addresses or globs; None is all of ``KINDS``: what each layer adds to the stream.
        windows: sets of step indices, like ``[range(0, 5), range(5, 20)]``; sites are restored in one
            window at a time. None is at all steps, as published.
        heads: heads, or groups of them, of ``z``, ``q``, ``k``, ``v`` or ``probs``, restored one at a time.
        tokens: positions, or groups of them, of the sites' tokens, restored one at a time: of the picture, or
            of the text at ``unet/in/text``. Of windows, heads and tokens one at most.
        neighbours: how many neighbouring sites of one kind are restored together, the named in the middle.
        direct: run the clean prompt with each place as in the corrupted run, too: ``direct_effect`` and
            ``necessary``. Twice the runs.
        source: where restored activations come from. ``"trajectory"``: the clean run (Basu et al. 2024), so
            they also carry what clean latents look like. ``"in_place"``: the clean prompt at the restored
            run's own latents, which isolates the path from text through the site and doubles the rows.
        corruption: how the subject is taken out.
        steps: number of sampling steps.
        guidance: guidance scale; None is the model's default.
        batch: samples in one batch of the denoiser.
        memory: bytes of the clean run's activations that may be kept at a time. If they are more, it runs in
            lock-step: as one more row of each batch, whose activations are copied at the moment they are
            there. The same numbers up to the rounding of batches; nothing is kept. It is told.
        store: a folder; each prompt and seed that is in it is not run again, so a call that was stopped goes
            on (docs/studies.md).
        progress: called with (done, total, what); without it a bar comes by itself.

    Returns:
        A Mediation with dims site, (window | head | token,) prompt, seed, draw.

    Raises:
        ValueError: for a model without text, sites outside the denoiser, and runs that cannot be made; heads
            or tokens that the sites do not have, or restored in place.
        LookupError: for a subject that is not in its prompt, and unknown sites.
        RuntimeError: for a store of another model or other settings, or that another process writes.
    """
    tracing = denoiser_tracing(
        model, prompts, subject, seeds=seeds, metric=metric, sites=sites, windows=windows, heads=heads,
        tokens=tokens, neighbours=neighbours, direct=direct, source=source, corruption=corruption,
        steps=steps, guidance=guidance, batch=batch, memory=memory,
    )  # fmt: skip
    return tracing.run(progress, store)


def denoiser_tracing(  # noqa: PLR0913  # what trace_denoiser is given
    model: Model,
    prompts: Sequence[str],
    subject: str | Sequence[str],
    *,
    seeds: Sequence[int],
    metric: Metric,
    sites: Sequence[Site | str] | Site | str | None = None,
    windows: Sequence[Collection[int]] | None = None,
    heads: Sequence[int | Sequence[int]] | None = None,
    tokens: Sequence[int | Sequence[int]] | None = None,
    neighbours: int = 1,
    direct: bool = False,
    source: Literal["trajectory", "in_place"] = "trajectory",
    corruption: Corruption = Noise(),  # noqa: B008  # a frozen value
    steps: int = 20,
    guidance: float | None = None,
    batch: int = 16,
    memory: int = MEMORY,
) -> Tracing:
    """Return what ``trace_denoiser`` runs; errors as its."""
    experiment = open_experiment(
        model, prompts, subject, seeds, metric=metric, corruption=corruption, steps=steps,
        guidance=guidance, batch=batch,
    )  # fmt: skip
    places = denoiser_sites(model, sites)
    cuts, columns = pieces(model, places, len(model.steps(steps)), windows, heads, tokens)
    if source == "in_place" and not (heads is None and tokens is None):
        raise UsageError(
            "heads and tokens are restored from the clean run alone; leave source as 'trajectory'"
        )
    plan = Plan(neighbouring(places, neighbours), cuts, direct)
    way = chosen_way(experiment, plan, source, memory)
    experiment.about.update(way.told, neighbours=neighbours)
    return Tracing(
        experiment, places, columns, way.restore, 3, direct,
        {"study": "trace_denoiser", **way.told, **plan.told}, way.counted, way.kept,
    )  # fmt: skip
