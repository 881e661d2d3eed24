"""What goes on in a model right now: its structure, the call it is in, the accounts kept of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from torch import nn

from ..errors import StateError
from ..run.context import Call
from ..site import Site
from .account import Account
from .blocks import Place, is_fused


class Live:
    """The one part of an opened model that changes while it runs; shared by its sizes."""

    def __init__(self) -> None:
        self.call: Call | None = None
        self.shapes: dict[Site, tuple[int, ...]] = {}
        self.network: nn.Module | None = None
        self.suspended = False
        self._accounts: list[Account] = []
        self._structure: tuple[object, ...] = ()
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
        structure = tuple(
            (name, id(m), is_fused(m)) for part in components.values() for name, m in part.named_modules()
        )
        if structure != self._structure:
            for part in components.values():
                part.eval()
            before, found = self._places, resolve()
            for site in (site for account in self._accounts for site in account.sites):
                if found.get(site) != before.get(site):
                    raise StateError(
                        f"{site} lies elsewhere since it is watched: a module was replaced or wrapped (a "
                        "LoRA), or projections were fused; change the model first, then watch it"
                    )
            self._structure, self._places, self.shapes = structure, found, {}
        return self._places

    @contextmanager
    def calling(self, call: Call) -> Iterator[None]:
        """Set the call for as long as the context lasts, and close its account."""
        before = self.call
        try:
            self.begin(call)
            yield
            self.end(call)
        finally:
            if self.call is call:  # a block that was interrupted may end late, in another call
                self.call = before

    def begin(self, call: Call) -> None:
        """A call of a network begins."""
        self.call = call
        for account in () if self.suspended else self._accounts:
            account.begin(call)

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
            yield
        finally:
            if self.network is network:
                self.network = before

    @property
    def watched(self) -> bool:
        """Whether somebody has hooks on the model."""
        return bool(self._accounts)
