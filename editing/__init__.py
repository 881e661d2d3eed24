"""What we change: one method a file, each returns an Edit."""

from importlib import import_module
from types import ModuleType

__all__ = ["edit", "quickfix", "ridge"]


def __getattr__(name: str) -> ModuleType:
    """Import a method's file when it is first asked for."""
    if name in __all__:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
