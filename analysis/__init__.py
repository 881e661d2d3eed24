"""What we conclude: one method a file, each returns Scores or Directions."""

from importlib import import_module
from types import ModuleType

__all__ = [
    "attention_maps",
    "corrupt",
    "effect",
    "mediation",
    "metrics",
    "plots",
    "questions",
    "scores",
]


def __getattr__(name: str) -> ModuleType:
    """Import a method's file when it is first asked for."""
    if name in __all__:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
