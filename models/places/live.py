"""What goes on in a model right now: its structure, the call it is in, the accounts kept of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeAlias

from torch import nn

from ..errors import StateError
from ..run.context import Call
from ..site import Site
from ..text.prompt import Words
from .account import Account
from .blocks import ATTENTION, Place, is_fused
from .mode import evaluating

Modules: TypeAlias = tuple[list[str], list[nn.Module | None]]


def modules_in(network: nn.Module) -> list[nn.Module]:
    """Return a network and all modules in it; several times faster than ``network.modules()``."""
    found = [network]
    for module in found:  # which grows meanwhile
        found += [child for child in module._modules.values() if child is not None]
    return found


def structure_of(components: Mapping[str, nn.Module]) -> Modules:
    """Return the names and modules of some components, level by level; equal as long as they are the same.

    It is asked at every lookup, and so it is a plain walk. The modules are kept, not their ids, which Python
    gives again to others.
    """
    names, modules = list(components), list[nn.Module | None](components.values())
    for module in modules:  # which grows meanwhile
        if module is not None and module._modules:
            names.extend(module._modules)
            modules.extend(module._modules.values())
    return names, modules


class Live:
    """The one part of an opened model that changes while it runs; shared by its sizes."""

    def __init__(self) -> None:
        self.call: Call | None = None
        self._begun: Call | None = None  # the same, as it was before its words were known
        self.shapes: dict[tuple[int, ...], dict[Site, tuple[int, ...]]] = {}  # by the size of pictures
        self.network: nn.Module | None = None
        self.suspended = False
        self._accounts: list[Account] = []
        self._structure: Modules = ([], [])
        self._attentions: list[nn.Module] = []
        self._fused: list[bool] | None = None
        self._places: dict[Site, Place] = {}

    def places(
        self, components: Mapping[str, nn.Module], resolve: Callable[[], dict[Site, Place]]
    ) -> dict[Site, Place]:
        """Return the places of the components as they are now; during a call, as they were when it began.

        A component that was replaced, or whose modules were (a LoRA, fused projections), is followed.

        Raises:
            StateError: if that moved a site that somebody has hooks on.
        """
        if self.call is not None and self._places:
            return self._places
        structure, attentions = structure_of(components), self._attentions
        if structure != self._structure:
            attentions = [m for m in structure[1] if isinstance(m, ATTENTION)]
        fused = [is_fused(m) for m in attentions]
        if structure != self._structure or fused != self._fused:
            found = resolve()
            self._check_unmoved(found)
            self._structure, self._attentions, self._fused = structure, attentions, fused
            self._places, self.shapes = found, {}
        return self._places

    def _check_unmoved(self, found: Mapping[Site, Place]) -> None:
        for site in (site for account in self._accounts for site in account.sites):
            if found.get(site) != self._places.get(site):
                raise StateError(
                    f"{site} lies elsewhere since it is watched: a module was replaced or wrapped (a "
                    "LoRA), or projections were fused; change the model first, then watch it"
                )

    @contextmanager
    def calling(self, call: Call) -> Iterator[None]:
        """Set the call for as long as the context lasts, in evaluation mode, and close its account."""
        before = self.call, self._begun
        try:
            self.begin(call)
            with evaluating(self._structure[1]):
                yield
            self.end(call)
        finally:
            if self._begun is call:  # a block that was interrupted may end late, in another call
                self.call, self._begun = before

    def begin(self, call: Call) -> None:
        """A call of a network begins."""
        self.call = self._begun = call
        for account in () if self.suspended else self._accounts:
            account.begin(call)

    def reading(self, encoder: str, words: Sequence[Words]) -> None:
        """A text encoder is about to read the texts of the call, cut up like this."""
        if self.call is not None:
            self.call = replace(self.call, words={**self.call.words, encoder: tuple(words)})

    def end(self, call: Call) -> None:
        """A call has come to its end; raises AccountError for what it did not reach."""
        for account in () if self.suspended else self._accounts:
            account.end(call)

    @contextmanager
    def accounted(self, account: Account) -> Iterator[None]:
        """Keep an account of the calls of the context."""
        try:
            self._accounts.append(account)
            yield
        finally:
            self._accounts.remove(account)

    @contextmanager
    def suspending(self) -> Iterator[None]:
        """Let networks be called with all interventions and accounts asleep."""
        before = self.suspended
        try:
            self.suspended = True
            yield
        finally:
            self.suspended = before

    @contextmanager
    def another(self, network: nn.Module | None) -> Iterator[None]:
        """Call another network in place of the denoiser."""
        before = self.network
        try:
            self.network = network
            with evaluating(() if network is None else network.modules()):
                yield
        finally:
            if self.network is network:
                self.network = before

    @property
    def watched(self) -> bool:
        """Whether somebody has hooks on the model."""
        return bool(self._accounts)
