"""Are the edges of a circuit true of the real network, and is the circuit the word's? By interventions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...models.base import Prompt
from .one_step import Contrast

Sets = Sequence[Sequence[int]]


def measured(asked: Contrast, pull: Tensor, sources: Sequence[int], targets: Sequence[int]) -> Tensor:
    """Return what target features lose when each source feature is as it is without the word.

    The real network, in which nothing is held; in the unit of edges, [source, target].

    Args:
        asked: what the word changes.
        pull: of target features, [position, feature].
        sources: one is switched in each row.
        targets: which are read.
    """
    source, target = asked.source, asked.target
    if not sources:
        return torch.zeros(0, len(targets))
    changes = {source.site: source.setting([[f] for f in sources], source.off)}
    _, seen = asked.at.output(asked.at.clean, len(sources), changes, watched=[target.site])
    lost = (target.on - target.codes(seen[target.site]))[..., list(targets)]  # [source, position, target]
    return (lost * pull[:, list(targets)]).sum(1)


def faithful(asked: Contrast, sources: Sets, targets: Sets) -> tuple[Tensor, Tensor]:
    """Return how much of the word's effect some circuits carry, [circuit], in two ways.

    Necessary: what is lost with the word, when the circuit is as it is without. Sufficient: what is gained
    without the word, when the circuit alone is as it is with it. Both are 1 for all of the effect.

    Args:
        asked: what the word changes.
        sources: features of each circuit at the source.
        targets: and at the target.
    """

    def run(prompt: Prompt, states: Sequence[Tensor]) -> Tensor:
        ends = zip((asked.source, asked.target), (sources, targets), states, strict=True)
        changes = {end.site: end.setting(sets, to) for end, sets, to in ends}
        out, _ = asked.at.output(prompt, len(sources), changes)
        return (out * asked.root).flatten(1).sum(1)

    lost = asked.effects[0] - run(asked.at.clean, (asked.source.off, asked.target.off))
    gained = run(asked.at.without, (asked.source.on, asked.target.on)) - asked.effects[1]
    return lost, gained


def random_sets(alive: Sequence[int], size: int, draws: int, generator: torch.Generator) -> list[list[int]]:
    """Return sets of features that the word changes, drawn without looking, each without repeats."""
    return [
        [alive[int(i)] for i in torch.randperm(len(alive), generator=generator)[:size]] for _ in range(draws)
    ]
