"""A whole edited pipeline as a folder that plain diffusers opens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...models.arguments import checked
from ...models.base import Model
from ...models.families.stable_diffusion_3 import StableDiffusion3
from ...models.opening.quiet import no_bars
from ...models.store.disk import new_folder
from ...models.zoo.folders import WORLD
from ..edit import Edit
from .carrying import carrying


@checked
def pipeline(model: Model, edit: Edit, path: str | Path) -> Path:
    """Write the pipeline with the edit in its weights: ``DiffusionPipeline.from_pretrained(path)`` opens it.

    Weights keep their number format. What else is on the model, other edits for example, is in the folder;
    ``world.json`` in it says where the edit comes from, and the model's guidance. The model is afterwards as
    before, to the bit.

    Args:
        model: the model the edit was made for; the edit may be on it already.
        edit: what to write.
        path: the folder to make, in diffusers' layout; it appears whole or not at all.

    Returns:
        The folder.

    Raises:
        ValueError: if the edit was made for other weights.
        RuntimeError: if LoRAs or fused projections lie beside the weights.
        FileExistsError: if there is something under that path.
        OSError: if it cannot be written.

    >>> import tempfile
    >>> from denoscope.editing import quickfix
    >>> from denoscope.models.synthetic.tiny import tiny_sd
    >>> model = load(tiny_sd())
    >>> edit = quickfix(model, {"cat": "dog"})
    >>> with tempfile.TemporaryDirectory() as there:
    ...     edited = load(pipeline(model, edit, Path(there) / "edited"))
    >>> name = next(iter(edit.deltas))
    >>> bool((edited.parameter(name) != model.parameter(name)).any())
    True
    """
    target = Path(path)
    told: dict[str, Any] = {
        "guidance": model.default_guidance,
        "edit": {"id": edit.id, "note": dict(edit.note)},
    }
    if isinstance(model, StableDiffusion3):
        told["text_tokens"] = model.t5_tokens
    with new_folder(target) as made, carrying(model, edit), no_bars():
        model.pipe.save_pretrained(made, safe_serialization=True)
        (made / WORLD).write_text(json.dumps(told, indent=1) + "\n")
    return target
