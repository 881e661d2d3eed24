"""A transformer with joint attention begins with what one with cross-attention has learnt of pictures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from diffusers import PixArtTransformer2DModel, SD3Transformer2DModel
from diffusers.models.embeddings import get_2d_sincos_pos_embed_from_grid
from torch import Tensor, nn

from ....errors import UsageError
from .training import Network

SAMPLES = 4096
"""Rows of noise by which the size of queries and keys is measured."""


@torch.no_grad()
def begin_with(joint: Network, cross: Network) -> None:
    """Copy patches, times, attention among patches, MLPs and the output; reading text is learnt anew.

    Args:
        joint: an SD3 transformer; its weights are changed. Its blocks begin as some, evenly, of the other's.
        cross: a PixArt transformer of the same width, patches and size.

    The captions as a whole begin with no effect. A flow says noise - x_0, which at the middle level is what a
    v-prediction says, up to a factor; the rest is learnt.

    Raises:
        ValueError: for transformers of other kinds, or of another width.
    """
    _check(joint, cross)
    joint.pos_embed.proj.load_state_dict(cross.pos_embed.proj.state_dict())
    joint.pos_embed.pos_embed.copy_(_positions(joint.pos_embed))
    embedder = joint.time_text_embed
    embedder.timestep_embedder.load_state_dict(cross.adaln_single.emb.timestep_embedder.state_dict())
    for zero in embedder.text_embedder.linear_2.parameters():
        nn.init.zeros_(zero)
    for block, other in _pairs(joint, cross):
        _block(block, other, cross.adaln_single.linear)
    shift, scale = cross.scale_shift_table
    nn.init.zeros_(joint.norm_out.linear.weight)
    joint.norm_out.linear.bias.copy_(torch.cat([scale, shift]))
    joint.proj_out.load_state_dict(cross.proj_out.state_dict())


def _check(joint: Network, cross: Network) -> None:
    """Refuse what does not fit, by its name or its width."""
    for one, kind in ((joint, SD3Transformer2DModel), (cross, PixArtTransformer2DModel)):
        if not isinstance(one, kind):
            raise UsageError(f"there is a {type(one).__name__} in the place of a {kind.__name__}")
    ours, theirs = joint.inner_dim, cross.inner_dim
    if ours != theirs:
        raise UsageError(f"the blocks are {theirs} wide; those that begin with them are {ours} wide")


def _pairs(joint: Network, cross: Network) -> Iterator[tuple[Any, Any]]:
    """Each block, and the one that it begins as."""
    ours, theirs = joint.transformer_blocks, cross.transformer_blocks
    last = max(len(ours) - 1, 1)
    for i, block in enumerate(ours):
        yield block, theirs[round(i * (len(theirs) - 1) / last)]


def _block(block: Any, other: Any, times: nn.Linear) -> None:
    """One block; its own table of shifts, scales and gates goes into the bias of its layer of times."""
    modulate = block.norm1.linear
    modulate.weight.copy_(times.weight)
    modulate.bias.copy_(times.bias + other.scale_shift_table.flatten())
    for name in ("to_q", "to_k", "to_v", "to_out.0"):
        block.attn.get_submodule(name).load_state_dict(other.attn1.get_submodule(name).state_dict())
    for norm, made in ((block.attn.norm_q, other.attn1.to_q), (block.attn.norm_k, other.attn1.to_k)):
        norm.weight.fill_(_size(made))
    block.ff.load_state_dict(other.ff.state_dict())


def _size(linear: nn.Linear) -> float:
    """Root mean square of what a layer makes of noise: what a norm of queries or keys would take away."""
    noise = torch.randn(SAMPLES, linear.in_features, generator=torch.Generator().manual_seed(0))
    return float(linear(noise).square().mean().sqrt())


def _positions(at: Any) -> Tensor:
    """Positions a whole step apart, (0, 0) where a usual picture begins, as PixArt's [1, position, width]."""
    side, width = at.pos_embed_max_size, at.pos_embed.shape[-1]
    steps = torch.arange(side, dtype=torch.float32) - (side - at.width) // 2
    grid = torch.stack(torch.meshgrid(steps, steps, indexing="xy"))
    found: Tensor = get_2d_sincos_pos_embed_from_grid(width, grid[:, None])
    return found[None]
