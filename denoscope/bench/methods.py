"""Which methods of editing are compared, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .. import editing
from ..editing.edit import Edit
from ..models.base import Model
from ..models.errors import NotFoundError, UsageError
from ..models.site import Site
from ..models.suggest import near

Requests = Mapping[str, str]
Make = Callable[[Model, Requests], Edit]
METHODS = (
    "quickfix",
    "uce",
    "uce/code",
    "time",
    "nullspace",
    "locoedit",
    "locoedit/random",
    "locoedit/all",
    "refact",
    "memit",
)
"""Those that are compared if none are named."""

SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "uce/code": {"settings": "code"},
    "time/paper": {"settings": "paper", "keep": ()},
    "nullspace/speed": {"settings": "speed"},
    "locoedit/paper": {"settings": "paper", "keep": ()},
    "quickfix/paper": {"ridge": 0.01, "keep": ()},
    "refact/paper": {"settings": "paper", "keep": ()},
    "memit/paper": {"settings": "paper", "keep": ()},
}
"""The authors' choices."""
NAMES = tuple(dict.fromkeys([*METHODS, *SETTINGS]))
Where = Literal["", "found", "random", "all"]
"""Which layers a method changes: those it names itself; what an analysis found; as many at random; all."""
LAYERS: Mapping[str, Where] = {
    "locoedit": "found",
    "locoedit/paper": "found",
    "locoedit/random": "random",
    "locoedit/all": "all",
}
"""Methods that are told which layers to change; two of them to see what the finding is worth."""


@dataclass(frozen=True)
class Method:
    """A way to make an edit.

    Args:
        name: how tables call it.
        make: of a model and what is said and meant, ``{"firefighter": "cook"}``, makes an Edit.
        where: which layers are told to ``make``, as ``weights=``; "" for one that is not told.
    """

    name: str
    make: Callable[..., Edit]
    where: Where = ""

    @property
    def told(self) -> dict[str, str]:
        """What tells it from another: a function of a user's by its name alone."""
        function = getattr(self.make, "func", self.make)
        return {"name": self.name, "function": getattr(function, "__qualname__", type(function).__name__)}

    def edit(self, model: Model, requests: Requests, layers: Sequence[Site] = ()) -> Edit:
        """Make an edit.

        Args:
            model: as it is now.
            requests: what is said -> what is meant.
            layers: those to change, for a method that is told.

        Raises:
            ValueError: if the method makes something else.
        """
        more = {"weights": list(layers)} if self.where else {}
        made = self.make(model, requests, **more)
        if not isinstance(made, Edit):
            raise UsageError(f"the method {self.name!r} returned {type(made).__name__}; return an Edit")
        return made


def chosen(methods: Sequence[str] | Mapping[str, Make] | None) -> list[Method]:
    """Return methods by name, or functions under the names that they are given.

    Args:
        methods: names (``NAMES``); or name -> function of a model and requests; None is ``METHODS``.

    Raises:
        LookupError: for an unknown name; it names near misses.
        ValueError: for none, and one that is named twice.
    """
    if isinstance(methods, Mapping):
        found = [Method(name, make) for name, make in methods.items()]
    else:
        found = [_named(name) for name in (METHODS if methods is None else methods)]
    names = [m.name for m in found]
    if not found or len(set(names)) < len(names):
        raise UsageError(f"methods is {names}; give at least one, each once: {', '.join(NAMES)}")
    return found


def _named(name: str) -> Method:
    if name not in NAMES:
        raise NotFoundError(f"there is no method {name!r} to compare; {near(name, NAMES)}")
    base, settings = name.partition("/")[0], SETTINGS.get(name, {})

    def make(model: Model, requests: Requests, **more: Any) -> Edit:
        edit: Edit = getattr(editing, base)(model, requests, **settings, **more)
        return edit

    make.__qualname__ = f"denoscope.editing.{base}"
    return Method(name, make, LAYERS.get(name, ""))
