"""Text encoders in the layouts of one-file checkpoints: CLIP's own, and OpenCLIP's with q, k and v in one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..places.parameters import WRAPPER

_TOP = (
    ("embeddings.position_embedding.weight", "positional_embedding"),
    ("embeddings.token_embedding.weight", "token_embedding.weight"),
    ("final_layer_norm.weight", "ln_final.weight"),
    ("final_layer_norm.bias", "ln_final.bias"),
)
_LAYER = (
    ("self_attn.out_proj", "attn.out_proj"),
    ("layer_norm1", "ln_1"),
    ("layer_norm2", "ln_2"),
    ("mlp.fc1", "mlp.c_fc"),
    ("mlp.fc2", "mlp.c_proj"),
)
_PROJECTION = "text_projection.weight"


def wrapped(name: str) -> str:
    """Return the name of a weight of CLIP's text encoder as it was first published, under ``text_model``.

    >>> wrapped("encoder.layers.0.mlp.fc1.weight")
    'text_model.encoder.layers.0.mlp.fc1.weight'
    """
    return name if name.startswith((f"{WRAPPER}.", "text_projection")) else f"{WRAPPER}.{name}"


def clip_state(encoder: Any) -> dict[str, Tensor]:
    """Return the weights of a CLIP text encoder by their original names."""
    return {wrapped(name): weight for name, weight in encoder.state_dict().items()}


def open_clip_state(encoder: Any) -> dict[str, Tensor]:
    """Return the weights of a CLIP text encoder as OpenCLIP holds them."""
    own = {wrapped(n).removeprefix(f"{WRAPPER}."): w for n, w in encoder.state_dict().items()}
    made = {old: own[new] for new, old in _TOP}
    if _PROJECTION in own:
        made["text_projection"] = own[_PROJECTION].T
    for i in range(encoder.config.num_hidden_layers):
        here, there = f"encoder.layers.{i}", f"transformer.resblocks.{i}"
        for kind in ("weight", "bias"):
            parts = [own[f"{here}.self_attn.{p}_proj.{kind}"] for p in "qkv"]
            made[f"{there}.attn.in_proj_{kind}"] = torch.cat(parts)
            made |= {f"{there}.{old}.{kind}": own[f"{here}.{new}.{kind}"] for new, old in _LAYER}
    return made
