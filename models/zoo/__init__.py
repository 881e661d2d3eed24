"""The embedded models: small, trained on openly licensed emoji; ``zoo.folder("emoji")`` is where one lies."""

from __future__ import annotations

from pathlib import Path

from ..errors import NotFoundError
from ..suggest import near

_HERE = Path(__file__).parent

ZOO: dict[str, Path] = {name: _HERE / name for name in ("emoji", "emoji-dit", "emoji-people")}
"""Name of each embedded model and the folder that holds it, in diffusers' layout."""


def folder(name: str) -> Path:
    """Where an embedded model lies.

    Args:
        name: a key of ``ZOO``.

    Returns:
        A folder that ``DiffusionPipeline.from_pretrained`` opens.

    Raises:
        LookupError: for an unknown name; it names near misses.

    >>> folder("emoji").name
    'emoji'
    """
    if name not in ZOO:
        raise NotFoundError(f"no embedded model is called {name!r}; {near(name, ZOO)}")
    return ZOO[name]
