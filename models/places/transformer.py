"""The sites of diffusion transformers: one stream of tokens (DiT, PixArt, Sana) or two (SD3, Flux)."""

from __future__ import annotations

from diffusers.hooks._helpers import TransformerBlockRegistry
from torch import nn

from .blocks import ATTENTION, Block, Found, attention, children, mlp, reads, transformer_block

_STACKS = (("transformer_blocks", "block"), ("single_transformer_blocks", "single"))
_ENTRIES = ("pos_embed.proj", "patch_embed.proj", "x_embedder")
_EXITS = ("proj_out", "proj_out_2")


def transformer_places(name: str, transformer: nn.Module) -> Found:
    """Every site of a diffusion transformer, in network order."""
    yield from reads(name, transformer)
    modules = dict(transformer.named_modules())
    for path in _ENTRIES:
        if path in modules:
            yield from Block(name, transformer, "in", path)("patch.out")
    for stack, label in _STACKS:
        for i, _ in enumerate(children(transformer, stack)):
            yield from _block(Block(name, transformer, f"{label}.{i}", f"{stack}.{i}"))
    for path in _EXITS:
        if path in modules:
            yield from Block(name, transformer, "out", path)("eps")


def _block(block: Block) -> Found:
    if type(block.module).__name__ == "SanaTransformerBlock":
        yield from _linear(block)
        return
    streams = TransformerBlockRegistry.get(type(block.module))
    if streams.return_encoder_hidden_states_index is None:
        yield from transformer_block(block)
        return
    img, txt = streams.return_hidden_states_index, streams.return_encoder_hidden_states_index
    yield from block("resid.pre@img", port="in", item="hidden_states")
    yield from block("resid.pre@txt", port="in", item="encoder_hidden_states")
    yield from block("adaln.temb", port="in", item="temb")
    yield from (_joint if hasattr(block.module, "ff") else _single)(block)
    yield from block("resid.post@img", item=img)
    if not getattr(block.module, "context_pre_only", False):  # else the last block: no text comes out
        yield from block("resid.post@txt", item=txt)


def _linear(block: Block) -> Found:
    """Linear self-attention, which has no probabilities, cross-attention, and an MLP of convolutions."""
    yield from block("resid.pre", port="in", item="hidden_states")
    for p in "qkv":
        yield from block(f"self_attn.{p}_proj", f"attn1.to_{p}")
    yield from block("self_attn.out", "attn1.to_out.0")
    yield from block("resid.mid1", "attn2", "in", "hidden_states")
    yield from attention(block, "cross_attn", "attn2")
    yield from block("resid.mid2", "norm2", "in", 0)
    yield from block("mlp.act", "ff.conv_point", "in", 0)
    yield from block("mlp.out", "ff")
    yield from block("resid.post")


def _joint(block: Block) -> Found:
    """Two streams, each with its own weights, that attend to each other."""
    module = block.module
    yield from attention(block, "joint_attn", "attn")
    if isinstance(getattr(module, "attn2", None), ATTENTION):
        yield from attention(block, "self_attn", "attn2")
    yield from block("resid.mid@img", "norm2", "in", 0)
    yield from mlp(block, "ff", "@img")
    if getattr(module, "norm2_context", None) is not None:
        yield from block("resid.mid@txt", "norm2_context", "in", 0)
    if getattr(module, "ff_context", None) is not None:
        yield from mlp(block, "ff_context", "@txt")


def _single(block: Block) -> Found:
    """Both streams in one sequence, text first; attention and MLP side by side, one projection for both."""
    yield from block("mlp.act", "act_mlp")
    yield from attention(block, "joint_attn", "attn")
    yield from block("attn_mlp.out", "proj_out")
