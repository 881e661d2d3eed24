"""What each part of a guidance added at each step: its length, and its angle to the prediction."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from ...models.arguments import checked
from ...models.drawn import Figure, figure
from ...models.errors import NotFoundError
from ...models.html import panel, table
from ...models.run.levels import Step
from ...models.run.state import State
from ...models.suggest import near


@dataclass(frozen=True, eq=False)
class GuidanceLog:
    """What guidance did in a run.

    Args:
        steps: those that were made.
        output: root mean square of the conditional output, [step, sample]; inside a pipeline's own call, of
            what the pipeline made of its branches.
        lengths: for each part ("CFG", "PAG", ...) the root mean square of what it added to the output,
            [step, sample]; 0 where it did not act.
        cosines: for each part the cosine of what it added with that output; not a number where nothing was.
        numbers: what the guidance remembers one number a sample of, such as the cosine of ``Adaptive``.
        rows: how many rows the network computed at each step; empty inside a pipeline's own call.
    """

    steps: tuple[Step, ...]
    output: Float[Tensor, "step sample"]
    lengths: Mapping[str, Float[Tensor, "step sample"]]
    cosines: Mapping[str, Float[Tensor, "step sample"]]
    numbers: Mapping[str, Float[Tensor, "step sample"]]
    rows: tuple[int, ...] = ()

    def __repr__(self) -> str:
        parts = ", ".join(f"{n} {float(self.share(n).mean()):.2g}" for n in self.lengths)
        said = f"added, as a share of the output: {parts}" if parts else "nothing was added"
        return f"GuidanceLog({len(self.steps)} steps; {said}; {sum(self.rows)} rows)"

    def _repr_html_(self) -> str:
        rows = [(n, float(self.share(n).mean()), float(self.cosines[n].nanmean())) for n in self.lengths]
        return panel(repr(self), table(("part", "share of the output", "cosine with it"), rows))

    @checked
    def share(self, part: str) -> Float[Tensor, "step sample"]:
        """Return how long what a part added is beside the output, [step, sample].

        Raises:
            LookupError: if the guidance has no such part.
        """
        if part not in self.lengths:
            raise NotFoundError(f"the guidance has no part {part!r}; {near(part, self.lengths)}")
        return self.lengths[part] / self.output.clamp(min=torch.finfo(self.output.dtype).tiny)

    def to_frame(self) -> pd.DataFrame:
        """Return a table: step, sigma, sample, part, length, share, cosine."""
        rows = [
            (step.index, step.sigma, sample, part, *(float(x[i, sample]) for x in found))
            for part in self.lengths
            for found in [(self.lengths[part], self.share(part), self.cosines[part])]
            for i, step in enumerate(self.steps)
            for sample in range(self.output.shape[1])
        ]
        return pd.DataFrame(rows, columns=["step", "sigma", "sample", "part", "length", "share", "cosine"])

    def plot(self) -> Figure:
        """Return a figure of each part's share over the steps, ``analysis.plots.guidance_lines``."""
        return figure("guidance_lines", self)


class LogKeeper:
    """Makes a GuidanceLog step by step, where the run computes; its few numbers come over at the end."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.output: list[Tensor] = []
        self.added: list[dict[str, tuple[Tensor, Tensor]]] = []
        self.numbers: list[dict[str, Tensor]] = []
        self.rows: list[int] = []

    def note(self, state: State) -> None:
        """A step was made."""
        numbers = {n: x for n, x in state.memory.items() if x.ndim == 1}
        self.keep(state.step, state.outputs.get("cond", state.output), state.added, numbers)
        self.rows.append(state.rows)

    def keep(
        self,
        step: Step,
        output: Tensor,
        added: Mapping[str, Tensor],
        numbers: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Keep what was added to an output, [sample, ...]."""
        flat = output.detach().flatten(1).float()
        self.steps.append(step)
        self.output.append(_length(flat))
        parts = {name: x.detach().flatten(1).float() for name, x in added.items()}
        self.added.append({name: (_length(x), _cosine(x, flat)) for name, x in parts.items()})
        self.numbers.append({name: x.detach().float() for name, x in (numbers or {}).items()})

    def result(self) -> GuidanceLog | None:
        """Return the log; None of no steps."""
        if not self.steps:
            return None
        some = {n: x for numbers in self.numbers for n, x in numbers.items()}
        unknown = torch.full_like(self.output[0], math.nan)
        return GuidanceLog(
            tuple(self.steps),
            torch.stack(self.output).cpu(),
            {p: self._over_steps(p, 0, torch.zeros_like(unknown)) for p in self._parts()},
            {p: self._over_steps(p, 1, unknown) for p in self._parts()},
            {k: torch.stack([x.get(k, unknown) for x in self.numbers]).cpu() for k in some},
            tuple(self.rows),
        )

    def _parts(self) -> list[str]:
        return list(dict.fromkeys(name for added in self.added for name in added))

    def _over_steps(self, part: str, which: int, missing: Tensor) -> Tensor:
        return torch.stack([added.get(part, (missing,) * 2)[which] for added in self.added]).cpu()


def _cosine(x: Tensor, y: Tensor) -> Tensor:
    """Not a number where nothing was added."""
    found = torch.cosine_similarity(x, y, dim=1)
    return found.masked_fill((x == 0).all(1), math.nan)


def _length(x: Tensor) -> Tensor:
    return x.square().mean(1).sqrt()
