"""Names of a folder that are imported when first asked for: torch and diffusers take seconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from .suggest import near


def lazily(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return ``__getattr__``, ``__dir__`` and ``__all__`` for the ``__init__`` of a package.

    Args:
        package: its ``__name__``.
        homes: for each public name the module below the package that holds it; empty for a module itself.
    """

    def getattr_(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}; {near(name, homes)}")
        home = homes[name]
        found = import_module(f"{package}.{home or name}")
        return getattr(found, name) if home else found

    return getattr_, lambda: sorted(homes), sorted(homes)
