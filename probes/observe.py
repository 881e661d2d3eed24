"""See several sites of one call of the network together, and compute beside it without being seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from ..models.adapter import Adapter
from ..models.arguments import check_fields
from ..models.errors import StateError, UsageError, WrongTypeError
from ..models.places.hooks import suspended
from ..models.places.unchanged import n_writes
from ..models.run.context import Branch, CallContext, When
from ..models.run.levels import Step
from ..models.site import Site
from .intervene import Intervention

Look = Callable[[Mapping[str, Tensor], CallContext], None]
__all__ = ["Observer", "suspended"]


@dataclass(frozen=True)
class Observer:
    """A function of several sites of one call: q, k and v of one attention, or input and output of a block.

    It goes wherever interventions go: ``trace(..., interventions=[observer])``. ``fn`` may call modules of
    the component it watches (``model.module(site)``): hooks rest meanwhile, so no other probe sees that, and
    the picture stays as it is, to the bit. Around modules of other components, put ``suspended(module)``.

    Args:
        sites: for each name its site, all in one component.
        fn: gets the tensors [row, ...] by name, and a ``CallContext``: step, branch, samples, prompts. It is
            called as soon as all sites were seen, once for each call of the network and each branch.
            Tensors are as interventions listed before made them, and are views: clone what you keep.
        when: which steps, guidance branch and samples.

    Raises:
        ValueError: for no sites, or sites in several components, which do not run together.

    While it acts, an AccountError (a RuntimeError) names a site that did not run in a call that it is in.

    >>> from denoscope.models.synthetic.tiny import tiny_sd
    >>> attention, seen = "unet/mid.attn.0.0/cross_attn", []
    >>> def scores(parts, context):
    ...     seen.append((parts["q"] @ parts["k"].mT).shape)
    >>> look = Observer({"q": f"{attention}.q", "k": f"{attention}.k"}, scores)
    >>> run = trace(load(tiny_sd()), ["a cat"], seeds=[0], steps=2, interventions=[look])
    >>> seen[0], len(seen)
    (torch.Size([1, 2, 16, 32]), 2)
    """

    sites: Mapping[str, Site | str]
    fn: Look
    when: When = When()

    def __post_init__(self) -> None:
        check_fields(self)
        object.__setattr__(self, "sites", {name: Site(str(s)) for name, s in self.sites.items()})
        components = {Site(str(s)).component for s in self.sites.values()}
        if len(components) != 1:
            raise UsageError(
                f"an observer's sites lie in one component, which runs them together; got {len(self.sites)} "
                f"sites in {sorted(components) or 'none'}"
            )

    def parts(self, model: Adapter) -> tuple[Intervention, ...]:
        """Return one intervention for each site; they hand over what they see, and change nothing."""
        sites = {name: Site(str(s)) for name, s in self.sites.items()}
        model.places_of(sites.values())
        root = model.components[next(iter(sites.values())).component]
        gathered = _Gathered(sites, self.fn, root)
        return tuple(Intervention(s, partial(gathered.add, n), self.when) for n, s in sites.items())


class _Gathered:
    """The parts of the call that is on, until they are all there."""

    def __init__(self, sites: Mapping[str, Site], fn: Look, root: nn.Module) -> None:
        self.sites, self.fn, self.modules = sites, fn, list(root.modules())
        self.waiting: dict[tuple[Branch, Step | None], dict[str, tuple[Tensor, int]]] = {}

    def add(self, name: str, x: Tensor, context: CallContext) -> None:
        """A site was reached; where a call has several branches, each site is reached once for each."""
        waiting = self.waiting.setdefault((context.branch, context.step), {})
        waiting[name] = x, n_writes(x)  # what a call that failed left behind is overwritten
        if len(waiting) < len(self.sites):
            return
        del self.waiting[context.branch, context.step]
        parts = {n: self._whole(n, *waiting[n]) for n in self.sites}
        with suspended(self.modules):
            answer: object = self.fn(parts, context)
        if answer is not None:
            raise WrongTypeError(
                f"an observer changes nothing, so its function returns None; it returned a "
                f"{type(answer).__name__}. To change activations, use an Intervention"
            )

    def _whole(self, name: str, x: Tensor, version: int) -> Tensor:
        if n_writes(x) != version:
            raise StateError(
                f"the tensor at {self.sites[name]} was overwritten in place before the other sites of the "
                "observer ran; observe it alone, and clone it"
            )
        return x
