"""Guidance as a value: which branches a run has, and how their outputs become one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from torch import Tensor, nn

from ..adapter import Adapter
from ..errors import UsageError
from ..places.intervention import Intervention
from ..run.context import Branch
from ..run.levels import Step
from ..text.prompt import Prompt

Reads: TypeAlias = "Literal['prompts', 'negative_prompts'] | Sequence[str | Prompt]"


@dataclass(frozen=True)
class GuidanceBranch:
    """One row a sample in every call: what it reads, and what is done to it.

    Args:
        name: "cond", "uncond", or one of its own; interventions name it in ``When(branch=...)``.
        reads: the run's ``"prompts"``, its ``"negative_prompts"``, or texts of its own, one a sample.
        interventions: what is changed in this branch alone; their own ``when.branch`` does not count.
        network: another network to call in place of the denoiser, with the same arguments.
    """

    name: Branch
    reads: Reads = "prompts"
    interventions: tuple[Intervention, ...] = ()
    network: nn.Module | None = None


@dataclass(frozen=True, eq=False)
class GuidanceContext:
    """The moment at which outputs are combined.

    Args:
        model: the opened model.
        step: the step of every row.
        steps: the step of each row.
        model_input: what the network was given, [sample, ...].
        prompts: what each sample reads.
    """

    model: Adapter
    steps: tuple[Step, ...]
    model_input: Tensor
    prompts: tuple[Prompt, ...]

    @property
    def step(self) -> Step:
        """The step, where all rows are at one.

        Raises:
            ValueError: if rows are at several.
        """
        if len(set(self.steps)) != 1:
            raise UsageError(f"the rows are at {len(set(self.steps))} different steps; use context.steps")
        return self.steps[0]


@dataclass(frozen=True, eq=False)
class Combined:
    """What a guidance makes of the branches' outputs.

    Args:
        output: the guided output, [sample, ...].
        direction: another output for the term of DDIM that points back to x_t; None is the same. Samplers
            without such a term refuse it.
        memory: what to carry to the next step, each [sample, ...].
    """

    output: Tensor
    direction: Tensor | None = None
    memory: Mapping[str, Tensor] = field(default_factory=dict)


class Guidance(ABC):
    """How outputs of several branches become one; a frozen value. ``guidance=4.0`` means ``CFG(4.0)``."""

    told_scale: float | None = None
    """The scale that networks are told which were distilled from guidance."""

    @abstractmethod
    def branches(self, model: Adapter) -> tuple[GuidanceBranch, ...]:
        """All branches that a run of this model may have; one of them is "cond"."""

    def active(self, step: Step, memory: Mapping[str, Tensor]) -> Collection[Branch] | None:  # noqa: ARG002
        """Return the branches that are needed at a step; None is all. The others are not computed."""
        return None

    @abstractmethod
    def combine(
        self, outputs: Mapping[Branch, Tensor], context: GuidanceContext, memory: Mapping[str, Tensor]
    ) -> Tensor | Combined:
        """Return the guided output, [sample, ...].

        Args:
            outputs: of each branch, the network's own output [sample, ...].
            context: the moment.
            memory: what the last step left; empty at the first.
        """


def names(branches: Sequence[GuidanceBranch]) -> tuple[Branch, ...]:
    """Return the names of branches.

    Raises:
        ValueError: for two of one name, and without "cond".
    """
    found = tuple(b.name for b in branches)
    if len(set(found)) != len(found) or "cond" not in found:
        raise UsageError(f"branches are called {found}; each needs a name of its own, and one is 'cond'")
    return found
