"""One call of the denoiser with a word and without it, and what two dictionaries see in both."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor, nn

from ...models.base import Model, Prompt
from ...models.run.context import CallContext
from ...models.run.levels import Step
from ...models.site import Site
from ...models.undo import Undo
from ...probes.dictionary import Dictionary
from ...probes.intervene import Intervention

Change = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class End:
    """One end of a circuit: a dictionary, and what it sees with the word and without it.

    Args:
        dictionary: of a site.
        step: at which it encodes.
        clean: activation with the word, [1, ...].
        without: the same without it.
    """

    dictionary: Dictionary
    step: Step
    clean: Tensor
    without: Tensor

    @property
    def site(self) -> Site:
        """Where it is."""
        return self.dictionary.site

    @cached_property
    def on(self) -> Tensor:
        """Codes with the word, [position, feature]."""
        return self.codes(self.clean)[0]

    @cached_property
    def off(self) -> Tensor:
        """Codes without the word, [position, feature]."""
        return self.codes(self.without)[0]

    @cached_property
    def change(self) -> Tensor:
        """What the word changes in the codes, [position, feature]."""
        return self.on - self.off

    @property
    def alive(self) -> list[int]:
        """Features that the word changes anywhere."""
        return [int(f) for f in self.change.any(0).nonzero()[:, 0]]

    def codes(self, x: Tensor) -> Tensor:
        """Codes [row, position, feature] of an activation [row, ...]."""
        dense = self.dictionary.encode(x.detach().float(), self.step).dense()
        return dense.reshape(len(x), -1, self.dictionary.width)

    def rows(self, x: Tensor) -> Tensor:
        """An activation [row, ...] as [row, position, channel]."""
        rows = self.dictionary.channels.rows(x)
        return rows.reshape(len(rows), -1, rows.shape[-1])

    def shaped(self, rows: Tensor) -> Tensor:
        """Channels [row, position, channel] as an activation [row, ...]."""
        positions = self.dictionary.channels.rows(self.clean).shape[1:-1]
        return self.dictionary.channels.restored(rows.reshape(len(rows), *positions, rows.shape[-1]))

    def added(self, codes: Tensor) -> Tensor:
        """What codes [row, position, feature] add to an activation, [row, ...]."""
        return self.shaped(codes @ self.dictionary.decoder.to(codes))

    def alone(self, sets: Sequence[Sequence[int]]) -> Tensor:
        """Masks of some sets of features, [set, 1, feature]."""
        mask = torch.zeros(len(sets), 1, self.dictionary.width, device=self.clean.device)
        for row, features in enumerate(sets):
            mask[row, 0, list(features)] = 1
        return mask

    def setting(self, sets: Sequence[Sequence[int]], to: Tensor) -> Change:
        """A change that gives each row's own set of features the codes ``to`` [position, feature]."""
        mask = self.alone(sets)
        return lambda x: x + self.added((to - self.codes(x)) * mask).to(x)


@dataclass(frozen=True, eq=False)
class OneStep:
    """A moment of a run, and two texts.

    Args:
        model: an opened model.
        x: what the network reads, [1, ...].
        step: the moment.
        clean: the prompt.
        without: the prompt without the word.
    """

    model: Model
    x: Tensor
    step: Step
    clean: Prompt
    without: Prompt

    def output(
        self,
        prompt: Prompt,
        rows: int = 1,
        changes: Mapping[Site, Change] | None = None,
        watched: Sequence[Site] = (),
    ) -> tuple[Tensor, dict[Site, Tensor]]:
        """Return the network's output [row, ...], and what passed through watched sites.

        A site is watched before it is changed.
        """
        seen: dict[Site, Tensor] = {}

        def act(site: Site, x: Tensor, _: CallContext) -> Tensor | None:
            if site in watched:
                seen[site] = x
            return changes[site](x) if changes and site in changes else None

        sites = dict.fromkeys([*watched, *(changes or {})])
        acting = [Intervention(site, partial(act, site)) for site in sites]
        x = self.x.expand(rows, *self.x.shape[1:])
        out = self.model.denoise(x, self.step, [prompt] * rows, interventions=acting)
        return out, seen


@dataclass(frozen=True, eq=False)
class Contrast:
    """What a word changes at one step: two ends, and the root.

    Args:
        at: the moment, and both texts.
        source: where edges begin.
        target: where they end.
        outputs: of the network with the word and without it, [1, ...].
    """

    at: OneStep
    source: End
    target: End
    outputs: tuple[Tensor, Tensor]

    @classmethod
    def of(cls, at: OneStep, source: Dictionary, target: Dictionary) -> Contrast:
        """Return the contrast between both texts."""
        sites = (source.site, target.site)
        runs = [at.output(prompt, watched=sites) for prompt in (at.clean, at.without)]
        ends = [End(d, at.step, *(seen[d.site] for _, seen in runs)) for d in (source, target)]
        return cls(at, ends[0], ends[1], (runs[0][0], runs[1][0]))

    @cached_property
    def root(self) -> Tensor:
        """Weights of the output, [1, ...], so that the word changes their sum of products by 1."""
        change = self.outputs[0] - self.outputs[1]
        return change / change.square().sum()

    @property
    def effects(self) -> tuple[float, float]:
        """The weighted outputs with the word and without it; the first is larger by 1."""
        first, second = (float((out * self.root).sum()) for out in self.outputs)
        return first, second


@contextmanager
def constant(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Let no weight require a gradient, so that what requires one depends on the activation."""
    trained = [p for module in modules for p in module.parameters() if p.requires_grad]
    with Undo() as undo:
        undo.add(partial(_require, trained, True))
        _require(trained, False)
        yield


def _require(parameters: Sequence[nn.Parameter], wanted: bool) -> None:
    for parameter in parameters:
        parameter.requires_grad_(wanted)
