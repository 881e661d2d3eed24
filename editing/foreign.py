"""Edits that other tools made, from files of whole weights: UCE, ESD, TIME and their like."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..models.arguments import checked
from ..models.base import Model
from ..models.errors import MissingFileError, NotFoundError, UsageError
from ..models.places.parameters import canonical, names
from ..models.store.tensor_file import is_pickled
from ..models.suggest import near
from .edit import Edit

CONVERT = (
    "convert it to safetensors where it comes from: safetensors.torch.save_file(weights, 'edit.safetensors')"
)

Shapes = Mapping[str, torch.Size]


@checked
def read_foreign(model: Model, path: str | Path, component: str | None = None) -> Edit:
    """Read another tool's edit: its weights less the model's own, in a file of whole weights by name.

    UCE, ESD and TIME write such files, with names inside the denoiser (``down_blocks.0...attn2.to_k.weight``)
    or with the component before them. Weights that are the model's own drop out. File and model are compared
    in the coarser of their number formats, so that rounding is no change; in that format the applied edit is
    the file to the bit.

    Args:
        model: the model that was edited, without the edit.
        path: the ``.safetensors`` file.
        component: where names without one belong; None takes the one component where all names and shapes
            are found.

    Returns:
        The edit; its note says the file and the components.

    Raises:
        FileNotFoundError: if there is no such file.
        LookupError: for a component or weight that the model does not have; the message names near misses.
        ValueError: for pickles and damaged files, weights of other shapes, names that fit several
            components, and a file that changes nothing.

    >>> import tempfile
    >>> from safetensors.torch import save_file
    >>> from denoscope.models.synthetic.tiny import tiny_sd
    >>> model, name = load(tiny_sd()), "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"
    >>> with tempfile.TemporaryDirectory() as there:
    ...     save_file({name: 2 * model.parameter(f"unet.{name}").detach()}, f"{there}/uce.safetensors")
    ...     edit = read_foreign(model, f"{there}/uce.safetensors")
    >>> edit.note["components"], list(edit.deltas) == [f"unet.{name}"]
    (['unet'], True)
    """
    file = Path(path)
    weights = _weights(file)
    if component is not None and component not in model.components:
        raise NotFoundError(
            f"{model.name} has no component {component!r}; {near(component, model.components)}"
        )
    placed = _placed(model, weights, file, component)
    deltas = dict[str, Tensor]()
    for name, weight in placed.items():
        own = model.parameter(name).detach().cpu()
        coarser = max(own.dtype, weight.dtype, key=lambda dtype: torch.finfo(dtype).eps)
        kept = weight.to(coarser) == own.to(coarser)
        if not kept.all():
            deltas[name] = (weight.double() - own.double()).masked_fill(kept, 0)
    if not deltas:
        raise UsageError(
            f"{str(file)!r} changes nothing: its {len(placed)} weights are those of {model.name!r}; give the "
            "model as it was before the edit"
        )
    parts = [part for part in model.components if any(name.startswith(f"{part}.") for name in deltas)]
    return Edit.of(model, deltas, method="foreign", file=file.name, components=parts)


def _weights(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise MissingFileError(f"there is no file {str(path)!r}; give a .safetensors file of whole weights")
    try:
        with safe_open(path, "pt") as file:
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dictionary
    except SafetensorError as error:
        if is_pickled(path):
            raise UsageError(
                f"{str(path)!r} is pickled, and pickles can run code when they are read; {CONVERT}"
            ) from error
        raise UsageError(f"{str(path)!r} is truncated or no safetensors ({error}); {CONVERT}") from error
    found = {name: weight for name, weight in found.items() if not name.endswith("position_ids")}
    wrong = next((name for name, weight in found.items() if not weight.is_floating_point()), None)
    if wrong or not found:
        what = f"{wrong} of {found[wrong].dtype}" if wrong else "nothing"
        raise UsageError(f"{str(path)!r} holds {what}; give a file of weights, of floating point numbers")
    if factors := next((name for name in found if "lora_" in name), None):
        raise UsageError(
            f"{str(path)!r} is a LoRA (it holds {factors}), no file of whole weights; "
            "pipe.load_lora_weights reads it, and pipe.fuse_lora() makes weights of it"
        )
    return found


def _placed(
    model: Model, weights: Mapping[str, Tensor], path: Path, component: str | None
) -> dict[str, Tensor]:
    """The weights by their full names in the model."""
    shapes = {name: model.parameter(name).shape for name in names(model.components)}
    bare = {n: w.shape for n, w in weights.items() if n.partition(".")[0] not in model.components}
    part = component or (_component(model, bare, shapes, path) if bare else "")
    placed = dict[str, Tensor]()
    for name, weight in weights.items():
        full = canonical(f"{part}.{name}" if name in bare else name)
        if full not in shapes:
            raise NotFoundError(
                f"{str(path)!r} holds {name}, and {model.name!r} has no {full}; {near(full, shapes)}"
            )
        if shapes[full] != weight.shape:
            raise UsageError(
                f"{str(path)!r} holds {name} of shape {tuple(weight.shape)}, and {full} of {model.name!r} "
                f"has {tuple(shapes[full])}; give the model that was edited"
            )
        placed[full] = weight
    return placed


def _component(model: Model, bare: Shapes, shapes: Shapes, path: Path) -> str:
    """The component that names without one belong to; the likeliest, for an error, if they fit none.

    Raises:
        UsageError: if names and shapes fit several.
    """
    full = {part: {canonical(f"{part}.{n}"): s for n, s in bare.items()} for part in model.components}
    fits = {part: [shapes.get(n) == s for n, s in own.items()] for part, own in full.items()}
    whole = [part for part, fit in fits.items() if all(fit)]
    if len(whole) > 1:
        raise UsageError(
            f"the weights of {str(path)!r} fit {' and '.join(whole)} of {model.name!r}; say which: "
            f"component={whole[0]!r}"
        )
    # by shapes, then by names: the error is about the one that was most likely meant
    return max(full, key=lambda part: (sum(fits[part]), sum(n in shapes for n in full[part])))
