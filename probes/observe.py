"""See several sites of one call of the network together, and compute beside it without being seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from ..models.base import Model
from ..models.places.hooks import calls, suspended
from ..models.run.levels import Step, When
from ..models.site import Site
from .intervene import Intervention

Look = Callable[[Mapping[str, Tensor], Any], None]
__all__ = ["Observer", "suspended"]


@dataclass(frozen=True)
class Observer:
    """A function of several sites of one call: q, k and v of one attention, or input and output of a block.

    It goes wherever interventions go: ``trace(..., interventions=[observer])``. ``fn`` may call modules of
    the component it watches (``model.module(site)``): hooks rest meanwhile, so no other probe sees that, and
    the picture stays as it is, to the bit. Around modules of other components, put ``suspended(module)``.

    Args:
        sites: for each name its site, all in one component.
        fn: gets the tensors [row, ...] by name, and what the function of an ``Intervention`` gets besides. It
            is called as soon as all sites were seen, once for each call of the network (and each branch).
            Tensors are as interventions listed before made them, and are views: clone what you keep.
        when: which steps, guidance branch and samples.

    Raises:
        ValueError: for no sites, or sites in several components, which do not run together.

    While it acts, a RuntimeError names the sites that did not run in a call in which others did.

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
        object.__setattr__(self, "sites", {name: Site(str(s)) for name, s in self.sites.items()})
        components = {Site(str(s)).component for s in self.sites.values()}
        if len(components) != 1:
            raise ValueError(
                f"an observer's sites lie in one component, which runs them together; got {len(self.sites)} "
                f"sites in {sorted(components) or 'none'}"
            )

    @contextmanager
    def within(self, model: Model) -> Iterator[tuple[Intervention, ...]]:
        """Give one intervention for each site; they hand over what they see, and change nothing."""
        sites = {name: Site(str(s)) for name, s in self.sites.items()}
        for site in sites.values():
            model.place(site)
        root = model.components[next(iter(sites.values())).component]
        gathered = _Gathered(sites, self.fn, root)
        with calls(root, gathered.begin, gathered.end):
            yield tuple(Intervention(s, partial(gathered.add, n), self.when) for n, s in sites.items())
        gathered.end()


class _Gathered:
    """The parts of the call that is on, until they are all there."""

    def __init__(self, sites: Mapping[str, Site], fn: Look, root: nn.Module) -> None:
        self.sites, self.fn, self.modules = sites, fn, list(root.modules())
        self.begin()

    def begin(self) -> None:
        """A call begins."""
        self.waiting: dict[str, list[tuple[Tensor, int]]] = {name: [] for name in self.sites}

    def add(self, name: str, x: Tensor, context: Step | None) -> None:
        """A site was reached; where a call has several branches, each site is reached once for each."""
        self.waiting[name].append((x, _version(x)))
        if all(self.waiting.values()):
            parts = {n: self._whole(n, *waiting.pop(0)) for n, waiting in self.waiting.items()}
            with suspended(self.modules):
                answer: object = self.fn(parts, context)
            if answer is not None:
                raise TypeError(
                    f"an observer changes nothing, so its function returns None; it returned a "
                    f"{type(answer).__name__}. To change activations, use an Intervention"
                )

    def end(self) -> None:
        """A call is over."""
        seen = [n for n, waiting in self.waiting.items() if waiting]
        missing = [str(self.sites[n]) for n in self.sites if n not in seen]
        if seen:
            self.begin()
            raise RuntimeError(
                f"an observer saw {', '.join(str(self.sites[n]) for n in seen)}, but in the same call "
                f"{', '.join(missing)} did not run"
            )

    def _whole(self, name: str, x: Tensor, version: int) -> Tensor:
        if _version(x) != version:
            raise RuntimeError(
                f"the tensor at {self.sites[name]} was overwritten in place before the other sites of the "
                "observer ran; observe it alone, and clone it"
            )
        return x


def _version(x: Tensor) -> int:
    return 0 if x.is_inference() else int(x._version)
