"""Transformers of Stable Diffusion 3 in the layout of its first publication: q, k and v in one."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from ..errors import UsageError

_TOP = (
    ("pos_embed.proj", "x_embedder.proj"),
    ("pos_embed.pos_embed", "pos_embed"),
    ("time_text_embed.timestep_embedder.linear_1", "t_embedder.mlp.0"),
    ("time_text_embed.timestep_embedder.linear_2", "t_embedder.mlp.2"),
    ("time_text_embed.text_embedder.linear_1", "y_embedder.mlp.0"),
    ("time_text_embed.text_embedder.linear_2", "y_embedder.mlp.2"),
    ("context_embedder", "context_embedder"),
    ("norm_out.linear", "final_layer.adaLN_modulation.1"),
    ("proj_out", "final_layer.linear"),
)
_BLOCK = {
    "attn.to_q": "x_block.attn.qkv",
    "attn.add_q_proj": "context_block.attn.qkv",
    "attn2.to_q": "x_block.attn2.qkv",
    "attn.to_out.0": "x_block.attn.proj",
    "attn2.to_out.0": "x_block.attn2.proj",
    "attn.to_add_out": "context_block.attn.proj",
    "attn.norm_q": "x_block.attn.ln_q",
    "attn.norm_k": "x_block.attn.ln_k",
    "attn.norm_added_q": "context_block.attn.ln_q",
    "attn.norm_added_k": "context_block.attn.ln_k",
    "attn2.norm_q": "x_block.attn2.ln_q",
    "attn2.norm_k": "x_block.attn2.ln_k",
    "norm1.linear": "x_block.adaLN_modulation.1",
    "norm1_context.linear": "context_block.adaLN_modulation.1",
    "ff.net.0.proj": "x_block.mlp.fc1",
    "ff.net.2": "x_block.mlp.fc2",
    "ff_context.net.0.proj": "context_block.mlp.fc1",
    "ff_context.net.2": "context_block.mlp.fc2",
}
_Q = re.compile(r"\.(to_q|add_q_proj)\.")
_K_OR_V = re.compile(r"\.(to_[kv]|add_[kv]_proj)\.")


def sd3_state(transformer: Any) -> dict[str, Tensor]:
    """Return the weights of a transformer of Stable Diffusion 3 by their original names.

    Raises:
        UsageError: if the original code has no such weight.
    """
    last = len(transformer.transformer_blocks) - 1
    # the original has shift before scale, AdaLayerNormContinuous scale before shift
    swapped = ("norm_out.linear.", f"transformer_blocks.{last}.norm1_context.linear.")
    own = {
        name: torch.cat(weight.chunk(2)[::-1]) if name.startswith(swapped) else weight
        for name, weight in transformer.state_dict().items()
    }
    made = dict[str, Tensor]()
    for name, weight in own.items():
        if _Q.search(name):
            before, q, after = _Q.split(name)
            parts = [own[f"{before}.{q.replace('q', p)}.{after}"] for p in "qkv"]
            made[_key(name)] = torch.cat(parts)
        elif not _K_OR_V.search(name):
            made[_key(name)] = weight
    return made


def _key(name: str) -> str:
    for new, old in _TOP:
        if name == new or name.startswith(f"{new}."):
            return old + name[len(new) :]
    block = re.fullmatch(r"transformer_blocks\.(\d+)\.(.+)\.(weight|bias)", name)
    if block is None or block[2] not in _BLOCK:
        raise UsageError(
            f"transformer.{name} has no place in the original layout; export the pipeline instead: "
            "export.pipeline(model, edit, path)"
        )
    return f"joint_blocks.{block[1]}.{_BLOCK[block[2]]}.{block[3]}"
