"""Perturbed-attention guidance: away from a branch whose self-attention is the identity (Ahn et al. 2024)."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import Tensor

from ..adapter import Adapter
from ..arguments import check_fields
from ..errors import NotFoundError, UsageError
from ..places.intervention import Intervention, Spec
from ..run.context import Branch, CallContext
from ..site import Site
from ..suggest import near
from .acting import ActsAt, check_acts
from .parts import GuidanceBranch, GuidanceContext
from .value import Term, check_strength


@dataclass(frozen=True)
class PAG(Term):
    """Add ``scale (cond - perturbed)``, where the perturbed branch attends to nothing but itself.

    Its self-attention maps are the identity, so that every head's output is its values (Ahn et al.
    2024). ``CFG(7.5) + PAG(3.0)`` is diffusers' PAG pipeline.

    Args:
        scale: how strongly.
        blocks: a glob of the blocks whose self-attention is perturbed; the paper's choice for Stable
            Diffusion is the middle block. Which blocks count is the model's: try.
        steps: at which steps it acts, or a factor for each.
        name: of the branch.

    Raises:
        ValueError: for a scale that is not finite; in a run, for a model without self-attention of its own.
        LookupError: (in a run) if no such block has self-attention.

    >>> from denoscope.models.guidance import CFG
    >>> from denoscope.models.synthetic.tiny import tiny_sd
    >>> load(tiny_sd()).branch_names(CFG(4.0) + PAG(3.0))
    ('uncond', 'cond', 'perturbed')
    """

    scale: float
    blocks: str = "mid*"
    steps: ActsAt = None
    name: str = "perturbed"

    def __post_init__(self) -> None:
        check_fields(self)
        check_strength("PAG", "scale", self.scale)
        check_acts("PAG", self.steps)

    @property
    def strength(self) -> float:
        """The scale."""
        return self.scale

    @property
    def needs(self) -> tuple[Branch, ...]:
        """The perturbed branch."""
        return (self.name,)

    def made(self, model: Adapter) -> tuple[GuidanceBranch, ...]:
        """Return the perturbed branch.

        Raises:
            ValueError: for a model whose denoiser has no self-attention of the picture alone.
            LookupError: if no such block has any.
        """
        part = model.input_site.component
        whole = [s for s in model.places() if s.component == part and s.kind == "self_attn.v"]
        if not whole:
            raise UsageError(
                f"{model.name} has no self-attention of the picture alone with maps to replace (it is joint "
                "with the text, or linear, or there is none), so PAG cannot act; Contrast can"
            )
        chosen = [s for s in whole if fnmatchcase(s.block, self.blocks)]
        if not chosen:
            blocks = [s.block for s in whole]
            raise NotFoundError(f"no block {self.blocks!r} has self-attention; {near(self.blocks, blocks)}")
        return (GuidanceBranch(self.name, interventions=tuple(i for s in chosen for i in _identity(s))),)

    def change(self, output: Tensor, outputs: Mapping[Branch, Tensor], context: GuidanceContext) -> Tensor:  # noqa: ARG002
        """Return how far the conditional branch is from the perturbed one."""
        return self.scale * (outputs["cond"] - outputs[self.name])


def _identity(values: Site) -> tuple[Intervention, Intervention]:
    """What makes a head's output its values: those are seen first, and put in its place, with no map made."""
    seen: deque[Tensor] = deque()
    outputs = Site(str(values).removesuffix("v") + "z")

    def keep(v: Tensor, _: CallContext) -> None:
        seen.append(v)

    def put(_: Tensor, __: CallContext) -> Tensor:
        return seen.popleft()

    what = Spec("identity attention", {})
    return Intervention(values, keep, spec=what), Intervention(outputs, put, spec=what)
