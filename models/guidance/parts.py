"""What a guidance is made of: branches, the moment at which they are combined, what comes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from torch import Tensor, nn

from ..adapter import Adapter
from ..errors import UsageError
from ..places.intervention import Intervention
from ..run.context import Branch
from ..run.levels import Step
from ..run.prediction import Steps
from ..text.prompt import Prompt

Reads: TypeAlias = "Literal['prompts', 'negative_prompts'] | Sequence[str | Prompt]"


@dataclass(frozen=True)
class GuidanceBranch:
    """One row a sample in every call: what it reads, and what is done to it.

    Args:
        name: "cond", "uncond", or one of its own; interventions name it in ``When(branch=...)``.
        reads: the run's ``"prompts"``, its ``"negative_prompts"``, or texts of its own: a list of one for all
            samples, or of one a sample.
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

    @property
    def each(self) -> Steps:
        """The step of all rows, or where they are at several one a row: what conversions take."""
        return self.steps[0] if len(set(self.steps)) == 1 else self.steps


@dataclass(frozen=True, eq=False)
class Combined:
    """What a guidance makes of the branches' outputs.

    Args:
        output: the guided output, [sample, ...].
        direction: another output for the term of DDIM that points back to x_t; None is the same. Samplers
            without such a term refuse it.
        memory: what to carry to the next step, each [sample, ...].
        added: what each part of it added to the conditional output, [sample, ...], where it has several.
    """

    output: Tensor
    direction: Tensor | None = None
    memory: Mapping[str, Tensor] = field(default_factory=dict)
    added: Mapping[str, Tensor] = field(default_factory=dict)


def names(branches: Sequence[GuidanceBranch]) -> tuple[Branch, ...]:
    """Return the names of branches.

    Raises:
        ValueError: for two of one name, and without "cond".
    """
    found = tuple(b.name for b in branches)
    if len(set(found)) != len(found) or "cond" not in found:
        raise UsageError(f"branches are called {found}; each needs a name of its own, and one is 'cond'")
    return found
