"""A model with an edit on it, for as long as its weights are written elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ...models.base import Model
from ...models.errors import StateError
from ...models.places.blocks import is_fused
from .. import weights
from ..edit import Edit


def check_for(edit: Edit, model: Model) -> None:
    """Make sure that an edit is on a model, or was made for it, and that its weights are all there is.

    Raises:
        UsageError: if the edit was made for other weights.
        StateError: if adapters or fused projections lie beside the weights.
    """
    for part, network in model.components.items():
        for name, module in network.named_modules():
            if hasattr(module, "base_layer"):
                raise StateError(
                    f"{part}.{name} of {model.name!r} carries an adapter (LoRA), which no export would hold; "
                    "run pipe.fuse_lora() and pipe.unload_lora_weights() before the edit is made, or unload "
                    "it alone"
                )
            if is_fused(module):
                raise StateError(
                    f"projections of {part}.{name} are fused into one, which files do not know; run "
                    f"pipe.{part}.unfuse_qkv_projections() first, and fuse again afterwards"
                )
    if not weights.carries(model, edit):
        weights.check(edit, model)


@contextmanager
def carrying(model: Model, edit: Edit) -> Iterator[None]:
    """Have an edit on a model while the context lasts; one that was on it before stays.

    Raises:
        UsageError: if the edit was made for other weights.
        StateError: as ``check_for``.
    """
    check_for(edit, model)
    if weights.carries(model, edit):
        yield
    else:
        with edit.applied(model):
            yield
