"""An edited model as a checkpoint of one file, in the layout of its first publication."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from ...models.arguments import checked
from ...models.base import Model
from ...models.errors import UsageError
from ...models.families.stable_diffusion import StableDiffusion
from ...models.families.stable_diffusion_3 import StableDiffusion3
from ...models.families.stable_diffusion_xl import StableDiffusionXL
from ...models.opening.ldm_keys import unet_state, vae_state
from ...models.opening.sd3_keys import sd3_state
from ...models.opening.text_keys import clip_state, open_clip_state
from ...models.store.disk import new_file
from ..edit import Edit
from .carrying import carrying

State = dict[str, Tensor]
_CLASSES = {
    "unet": "UNet2DConditionModel",
    "transformer": "SD3Transformer2DModel",
    "vae": "AutoencoderKL",
    "text_encoder": "CLIPTextModel",
    "text_encoder_2": "CLIPTextModelWithProjection",
}


@checked
def checkpoint(model: Model, edit: Edit, path: str | Path) -> Path:
    """Write the edited model as one file in its original key layout: A1111, ComfyUI, ``from_single_file``.

    Stable Diffusion 1, 2, XL and 3. A file holds weights alone: who opens it adds the configuration, as in
    ``load(path, config="folder")``. Weights keep their number format; the model is afterwards as before.

    Args:
        model: the model the edit was made for; the edit may be on it already.
        edit: what to write.
        path: the ``.safetensors`` file; it appears whole or not at all, and an older one is replaced.

    Returns:
        The file.

    Raises:
        ValueError: for a family or a weight without place in such a file, a path of another kind, and an edit
            of other weights.
        RuntimeError: if LoRAs or fused projections lie beside the weights.
        OSError: if it cannot be written; an older file stays as it was.

    >>> import tempfile
    >>> from safetensors import safe_open
    >>> from denoscope.editing import quickfix
    >>> from denoscope.models.synthetic.tiny import tiny_sd
    >>> model = load(tiny_sd())
    >>> edit = quickfix(model, {"cat": "dog"})
    >>> with tempfile.TemporaryDirectory() as there:
    ...     with safe_open(checkpoint(model, edit, Path(there) / "edited.safetensors"), "pt") as file:
    ...         print(next(name for name in file.keys() if "out_proj" in name))
    cond_stage_model.transformer.text_model.encoder.layers.0.self_attn.out_proj.bias
    """
    target, layout = Path(path), LAYOUTS.get(type(model))
    if target.suffix != ".safetensors":
        raise UsageError(
            f"path is {str(path)!r}; checkpoints end with .safetensors, by which others know them"
        )
    if layout is None:
        known = ", ".join(family.__name__ for family in LAYOUTS)
        raise UsageError(
            f"{type(model.pipe).__name__} has no layout of one file; {known} have. Export the pipeline "
            "instead: export.pipeline(model, edit, path)"
        )
    _check_classes(model)
    with new_file(target) as part, carrying(model, edit):
        save_file(_apart(layout(model.pipe)), part)
    return target


def _stable_diffusion(pipe: Any) -> State:
    state = _placed("model.diffusion_model", unet_state(pipe.unet))
    if pipe.text_encoder.config.hidden_act == "gelu":  # OpenCLIP's, of Stable Diffusion 2
        state |= _placed("cond_stage_model.model", open_clip_state(pipe.text_encoder))
    else:
        state |= _placed("cond_stage_model.transformer", clip_state(pipe.text_encoder))
    return state | _placed("first_stage_model", vae_state(pipe.vae))


def _stable_diffusion_xl(pipe: Any) -> State:
    return (
        _placed("model.diffusion_model", unet_state(pipe.unet))
        | _placed("conditioner.embedders.0.transformer", clip_state(pipe.text_encoder))
        | _placed("conditioner.embedders.1.model", open_clip_state(pipe.text_encoder_2))
        | _placed("first_stage_model", vae_state(pipe.vae))
    )


def _stable_diffusion_3(pipe: Any) -> State:
    first = clip_state(pipe.text_encoder)
    projection = first["text_projection.weight"]
    if not torch.equal(projection, torch.eye(*projection.shape).to(projection)):
        raise UsageError(
            "text_encoder.text_projection is no identity, which is what diffusers takes it for in a file of "
            "Stable Diffusion 3; export the pipeline instead: export.pipeline(model, edit, path)"
        )
    state = _placed("model.diffusion_model", sd3_state(pipe.transformer))
    state |= _placed("text_encoders.clip_l.transformer", first)
    state |= _placed("text_encoders.clip_g.transformer", clip_state(pipe.text_encoder_2))
    if pipe.text_encoder_3 is not None:
        state |= _placed("text_encoders.t5xxl.transformer", pipe.text_encoder_3.state_dict())
    return state | _placed("first_stage_model", vae_state(pipe.vae))


LAYOUTS: Mapping[type[Model], Callable[[Any], State]] = {
    StableDiffusion: _stable_diffusion,
    StableDiffusionXL: _stable_diffusion_xl,
    StableDiffusion3: _stable_diffusion_3,
}


def _check_classes(model: Model) -> None:
    for part, kind in _CLASSES.items():
        if part not in model.pipe.components:
            continue
        found = type(getattr(model.pipe, part)).__name__
        if not found.startswith(kind.removesuffix("WithProjection")):
            raise UsageError(
                f"{part} of {model.name!r} is a {found}, and the layout of one file is that of a {kind}; "
                "export the pipeline instead: export.pipeline(model, edit, path)"
            )


def _placed(place: str, state: Mapping[str, Tensor]) -> State:
    return {f"{place}.{name}": weight for name, weight in state.items()}


def _apart(state: State) -> State:
    """Each weight in memory of its own: T5's embedding has two names."""
    seen, made = set[int](), State()
    for name, weight in state.items():
        own = weight.detach().contiguous()
        made[name] = own.clone() if own.data_ptr() in seen else own
        seen.add(own.data_ptr())
    return made
