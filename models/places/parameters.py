"""Parameters of those that are read, by names that do not depend on the version of transformers.

CLIP text encoders hold their layers in a module ``text_model`` in some versions and classes, and not in
others. Its name is left out here, so that an edit made under one of them finds its weights under another.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import nn

from ..errors import NotFoundError, StateError
from ..suggest import near
from .blocks import unread

WRAPPER = "text_model"


def canonical(name: str) -> str:
    """Return the name of a parameter without the module that only some versions have.

    >>> canonical("text_encoder.text_model.encoder.layers.0.mlp.fc1.weight")
    'text_encoder.encoder.layers.0.mlp.fc1.weight'
    """
    component, _, path = name.partition(".")
    return f"{component}.{path.removeprefix(WRAPPER + '.')}" if component.startswith("text_encoder") else name


def names(components: Mapping[str, nn.Module]) -> Iterable[str]:
    """Return the names of all parameters."""
    return (canonical(f"{c}.{n}") for c, m in components.items() for n, _ in m.named_parameters())


def parameter(components: Mapping[str, nn.Module], model: str, name: str) -> nn.Parameter:
    """Return a parameter by its full name, with or without ``text_model``.

    Args:
        components: the networks.
        model: name of the model, for the error.
        name: component and path, ``text_encoder.encoder.layers.0.mlp.fc1.weight``.

    Raises:
        NotFoundError: if there is none; the message names near misses.
        StateError: if it is there, but nobody reads it, since projections were fused.
    """
    component, _, path = canonical(name).partition(".")
    for found in (path, f"{WRAPPER}.{path}"):
        try:
            made = components[component].get_parameter(found)
        except (KeyError, AttributeError):
            continue
        _check_read(components[component], component, found)
        return made
    raise NotFoundError(f"{model} has no parameter {name!r}; {near(name, names(components))}")


def _check_read(module: nn.Module, component: str, path: str) -> None:
    *owners, _ = path.split(".")
    for i, child in enumerate(owners):
        if child in unread(module.get_submodule(".".join(owners[:i]))):
            raise StateError(
                f"{component}.{path} is not read: fuse_qkv_projections() put a copy in its place; run "
                f"pipe.{component}.unfuse_qkv_projections() first, and fuse again afterwards"
            )
