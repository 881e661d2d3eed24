"""For one prompt and one word: the features of two sites that carry it, and each connection checked."""

from __future__ import annotations

from typing import Any, Unpack

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from ...models.arguments import checked
from ...models.base import Model
from ...models.errors import UsageError
from ...models.run.sampling import Sampling, SamplingOptions
from ...models.store.provenance import provenance
from ...probes.dictionary import Dictionary
from .attributing import Attribution, attributed, strongest
from .checking import faithful, measured, random_sets
from .one_step import Contrast, OneStep
from .result import Circuit

DRAWS = 20
"""Random circuits beside the one that was found."""
SHARE = 0.8
"""Edges are kept, strongest first, until they make up so much of all between the chosen features."""


@checked
def trace_circuit(  # noqa: PLR0913  # one experiment, all its settings by name
    model: Model,
    source: Dictionary,
    target: Dictionary,
    prompt: str,
    word: str,
    *,
    seed: int = 0,
    step: int = 0,
    features: int = 8,
    **settings: Unpack[SamplingOptions],
) -> Circuit:
    """Return a small graph of the features of two sites through which a word reaches the output of one step.

    The root is what the word changes in the network's conditional output at one step of a run, as a whole 1.
    Edges between features are exact in a network whose attention, norms and gates are held at their values;
    then each is checked in the real one, by giving the source feature the value that it has without the word.
    The graph is checked as a whole beside random ones of as many features, drawn among all that the word
    changes.

    Args:
        model: an opened model that reads text.
        source: a dictionary of an earlier site.
        target: a dictionary of a later one.
        prompt: a text.
        word: of it; the other text is the prompt without it.
        seed: of the run.
        step: at which the network is looked at, counted from 0.
        features: how many of each site, at most.
        **settings: of the run that leads to the step, as in ``Sampling``: steps, guidance.

    Raises:
        ValueError: for dictionaries of updates, transcoders or whole maps, a target that runs before the
            source, a word that changes nothing, and a step outside the run.
        LookupError: for a word that the prompt does not have, and sites that the model does not have.
    """
    how = Sampling(**settings)
    model = model.sized(how.size)
    for dictionary in (source, target):
        _check(model, dictionary)
    if not 0 <= step < len(model.steps(how)) or features < 1:
        raise UsageError(
            f"step is {step}, features {features}; steps are 0 to {len(model.steps(how)) - 1}, features 1 up"
        )
    with torch.no_grad():
        asked = Contrast.of(_moment(model, prompt, word, (seed, step), settings), source, target)
        if torch.equal(*asked.outputs):
            raise UsageError(f"{word!r} changes nothing in the output of step {step}; name another")
    found = attributed(asked, features)
    with torch.no_grad():
        data = _checked(asked, found, features)
    about = provenance(model, **how.described(model), method="trace_circuit", prompt=prompt, word=word)
    about |= {"source_site": str(source.site), "target_site": str(target.site), "seed": seed, "step": step}
    return Circuit(data.assign_attrs(about))


def _check(model: Model, dictionary: Dictionary) -> None:
    dictionary.check(model)
    channels = dictionary.channels
    if channels.kind != "state" or channels.kernel != "position" or not channels.has_steps:
        raise UsageError(
            f"{dictionary} is not of single positions of one site of the denoiser; a circuit is between those"
        )


def _moment(
    model: Model, prompt: str, word: str, when: tuple[int, int], settings: SamplingOptions
) -> OneStep:
    """What the network reads at a step of the prompt's run of a seed, and the two texts."""
    clean = model.encode([prompt])[0]
    without = model.encode([clean.without(word)])[0]
    seed, step = when
    for state in model.sample([prompt], seeds=[seed], **settings):
        if state.step.index == step:
            break
    return OneStep(model, state.model_input, state.step, clean, without)


def _checked(asked: Contrast, found: Attribution, features: int) -> xr.Dataset:
    """The graph, with what interventions say of it."""
    ends = asked.source, asked.target
    sources, chosen = strongest(found.edges.abs().sum(1), features), found.chosen
    generator = torch.Generator().manual_seed(0)
    beside = random_sets([f for f in ends[0].alive if f not in sources], len(sources), 1, generator)[0]
    real = measured(asked, found.pull, [*sources, *beside], chosen)
    n, edges = len(sources), found.edges[sources]
    sizes = zip(ends, (n, len(chosen)), strict=True)
    randoms = [random_sets(end.alive, size, DRAWS, generator) for end, size in sizes]
    sets = ([sources, *randoms[0]], [chosen, *randoms[1]])
    lost, gained = faithful(asked, *sets)
    dims = ("source", "target")
    variables: dict[str, Any] = {
        "predicted": (dims, edges),
        "measured": (dims, real[:n]),
        "kept": (dims, _kept(edges)),
        "other_predicted": (("other", "target"), found.edges[beside]),
        "other_measured": (("other", "target"), real[n:]),
        "carried": (("target",), found.carried[chosen]),
        "from_rest": (("target",), found.rest),
        "from_all": (("target",), found.edges.sum(0)),
        "alone": (("source",), found.sources[sources]),
        "necessary": (("circuit",), lost),
        "sufficient": (("circuit",), gained),
    }
    plain = {k: (dims, np.asarray(x.detach().cpu(), np.float64)) for k, (dims, x) in variables.items()}
    coords = {"source": sources, "target": chosen, "other": beside,
              "circuit": ["found", *[f"random {i}" for i in range(DRAWS)]]}  # fmt: skip
    about = {
        "gap": found.gap,
        "through_targets": float(found.carried.sum()),
        "alive": [len(end.alive) for end in ends],
    }
    return xr.Dataset(plain, coords, attrs=about)


def _kept(edges: Tensor) -> Tensor:
    """Which edges are kept: 1 for those that make up most, strongest first."""
    sizes = edges.abs().flatten()
    order = sizes.argsort(descending=True)
    before = sizes[order].cumsum(0) - sizes[order]
    kept = torch.zeros_like(sizes)
    kept[order] = (before < SHARE * sizes.sum()).to(kept)
    return kept.view_as(edges)


__all__ = ["trace_circuit"]
