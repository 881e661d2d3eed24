"""Parameters by their full name, of those that are read."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from ..errors import NotFoundError, StateError
from ..suggest import near
from .blocks import unread


def found_parameter(components: Mapping[str, nn.Module], name: str, model: str) -> nn.Parameter:
    """Return a parameter of one of a model's components; see ``Model.parameter``."""
    component, _, path = name.partition(".")
    try:
        found = components[component].get_parameter(path)
    except (KeyError, AttributeError):
        names = (f"{c}.{n}" for c, m in components.items() for n, _ in m.named_parameters())
        raise NotFoundError(f"{model} has no parameter {name!r}; {near(name, names)}") from None
    *owners, _ = path.split(".")
    for i, child in enumerate(owners):
        if child in unread(components[component].get_submodule(".".join(owners[:i]))):
            raise StateError(
                f"{name} is not read: fuse_qkv_projections() put a copy in its place; run "
                f"pipe.{component}.unfuse_qkv_projections() first, and fuse again afterwards"
            )
    return found
