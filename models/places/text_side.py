"""The text's side of a block of joint attention, called beside a run: Stable Diffusion 3 and FLUX.1.

What a block does to the text it does to any rows of the same stream: norms scaled by the time, projections of
its own, attention, and what leaves it. Positions are left out: the text's are all 0 in FLUX.1, where rotating
by them changes nothing, and Stable Diffusion 3 has none.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from ..errors import StateError
from .blocks import is_fused

Gates: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor]
"""Gate of attention; shift, scale and gate of the MLP: each [row, channel]."""


def embedded_text(network: nn.Module, embeds: Tensor) -> Tensor:
    """Return encoded text [token, channel] as the first block is given it."""
    embedder: Any = getattr(network, "context_embedder", None)
    if embedder is None:
        raise StateError(f"{type(network).__name__} has no context_embedder; its text stream is not known")
    stream: Tensor = embedder(embeds)
    return stream


def without_pooled(network: Any, temb: Tensor, pooled: Tensor) -> Tensor:
    """Return what blocks are told about time and text [row, channel], with zeros for the pooled text."""
    embedder = network.time_text_embed.text_embedder
    told: Tensor = temb - embedder(pooled.to(temb)) + embedder(torch.zeros_like(pooled).to(temb))
    return told


def entering(block: Any, text: Tensor, temb: Tensor) -> tuple[Tensor, Gates | None]:
    """Return what attention is given of a text stream [row, token, channel], and the gates of what follows.

    The last block of Stable Diffusion 3 has no gates: no text leaves it.
    """
    if getattr(block, "context_pre_only", False):
        return block.norm1_context(text, temb), None
    normed, *gates = block.norm1_context(text, emb=temb)
    gate, shift, scale, gate_mlp = gates
    return normed, (gate, shift, scale, gate_mlp)


def text_qkv(attention: Any, normed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the text's queries, keys and values, each [row, head, token, channel]."""
    if is_fused(attention):
        parts = attention.to_added_qkv(normed).chunk(3, -1)
    else:
        parts = tuple(getattr(attention, f"add_{p}_proj")(normed) for p in "qkv")
    q, k, v = (x.unflatten(-1, (attention.heads, -1)).transpose(1, 2) for x in parts)
    if attention.norm_added_q is not None:
        q = attention.norm_added_q(q)
    if attention.norm_added_k is not None:
        k = attention.norm_added_k(k)
    return q, k, v


def leaving(block: Any, text: Tensor, z: Tensor, gates: Gates) -> Tensor:
    """Return the text stream after a block, from what attention gave it, z [row, head, token, channel]."""
    gate, shift, scale, gate_mlp = (g[:, None] for g in gates)
    text = text + gate * block.attn.to_add_out(z.transpose(1, 2).flatten(2))
    scaled = block.norm2_context(text) * (1 + scale) + shift
    after: Tensor = text + gate_mlp * block.ff_context(scaled)
    return after.clip(-65504, 65504) if after.dtype == torch.float16 else after
