"""Where sites lie in a loaded network, and the parts that blocks of every family share."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from diffusers.models.attention import AttentionModuleMixin
from diffusers.models.attention_processor import Attention
from torch import nn

from ..site import Site
from .attention import ATTENTION_KINDS

Port = Literal["in", "out", "sdpa"]
ATTENTION = (Attention, AttentionModuleMixin)


@dataclass(frozen=True)
class Place:
    """Where a site lies in the loaded network.

    Args:
        module: the module that carries it.
        port: its input, its output, or the fused attention call inside it.
        item: which argument or tuple item, or which of q, k, v, probs, z.
        path: dotted path of the module inside its component.
    """

    module: nn.Module
    port: Port
    item: int | str | None
    path: str


Found = Iterator[tuple[Site, Place]]


class Block:
    """Yields the sites of one block: ``block(kind, submodule path, port, item)``."""

    def __init__(self, component: str, root: nn.Module, block: str, path: str) -> None:
        self.component, self.root, self.block, self.path = component, root, block, path
        self.module = root.get_submodule(path)

    def __call__(self, kind: str, sub: str = "", port: Port = "out", item: int | str | None = None) -> Found:
        """Yield one site of the block."""
        path = ".".join(p for p in (self.path, sub) if p)
        yield (
            Site(f"{self.component}/{self.block}/{kind}"),
            Place(self.root.get_submodule(path), port, item, path),
        )


def attention(block: Block, kind: str, sub: str) -> Found:
    """Projections, inside and output of one attention module; two streams where it joins two."""
    module, dot = (
        block.root.get_submodule(".".join(p for p in (block.path, sub) if p)),
        f"{sub}." if sub else "",
    )
    joint = getattr(module, "add_q_proj", None) is not None
    stream = "@img" if joint else ""
    idle = unread(module)
    for p in (p for p in "qkv" if f"to_{p}" not in idle):
        yield from block(f"{kind}.{p}_proj{stream}", f"{dot}to_{p}")
    for p in (p for p in "qkv" if joint and f"add_{p}_proj" not in idle):
        yield from block(f"{kind}.{p}_proj@txt", f"{dot}add_{p}_proj")
    for p in ATTENTION_KINDS:
        yield from block(f"{kind}.{p}", sub, "sdpa", p)
    if len(getattr(module, "to_out", None) or ()):
        yield from block(f"{kind}.out{stream}", f"{dot}to_out.0")
    if joint and getattr(module, "to_add_out", None) is not None:
        yield from block(f"{kind}.out@txt", f"{dot}to_add_out")


def is_fused(module: nn.Module) -> bool:
    """Return whether an attention module projects to q, k and v at once (``fuse_qkv_projections``)."""
    if isinstance(module, Attention):  # its flag stays when projections are taken apart again
        return "Fused" in type(module.processor).__name__
    return bool(getattr(module, "fused_projections", False))


def unread(module: nn.Module) -> frozenset[str]:
    """Return the projections of an attention module that never run, since they were fused into one."""
    if not isinstance(module, ATTENTION) or not is_fused(module):
        return frozenset()
    alone = {"q"} if getattr(module, "to_qkv", None) is None else set()  # cross-attention fuses k and v
    return frozenset(f for p in set("qkv") - alone for f in (f"to_{p}", f"add_{p}_proj"))


def transformer_block(block: Block) -> Found:
    """A BasicTransformerBlock: self-attention, cross-attention and MLP, each added to the stream."""
    module = block.module
    yield from block("resid.pre", port="in", item="hidden_states")
    crosses = isinstance(getattr(module, "attn2", None), ATTENTION)
    if isinstance(getattr(module, "attn1", None), ATTENTION):
        kind = "cross_attn" if getattr(module.attn1, "is_cross_attention", False) else "self_attn"
        doubled = crosses and kind == "cross_attn" and getattr(module.attn2, "is_cross_attention", False)
        yield from attention(block, "first_cross_attn" if doubled else kind, "attn1")
    single = getattr(module, "norm_type", "") == "ada_norm_single"  # its norm2 stands before the MLP
    if crosses:
        yield from block("resid.mid1", *(("attn2", "in", "hidden_states") if single else ("norm2", "in", 0)))
        yield from attention(block, "cross_attn", "attn2")
    yield from block("resid.mid2" if crosses else "resid.mid", "norm2" if single else "norm3", "in", 0)
    yield from mlp(block, "ff")
    yield from block("resid.post")


def mlp(block: Block, sub: str, stream: str = "") -> Found:
    """Neurons (what the last projection reads) and output of a feed-forward module."""
    yield from block(f"mlp.act{stream}", f"{sub}.net.2", "in", 0)
    yield from block(f"mlp.out{stream}", sub)


def reads(component: str, network: nn.Module) -> Found:
    """The text as the denoiser is given it at every step: its tokens, and its pooled embedding."""
    block, given = Block(component, network, "in", ""), inspect.signature(type(network).forward).parameters
    config = getattr(network, "config", {})
    crosses = config.get("cross_attention_dim") is not None or "joint_attention_dim" in config
    if "encoder_hidden_states" in given and crosses:
        yield from block("text", port="in", item="encoder_hidden_states")
    if "pooled_projections" in given:
        yield from block("pooled", port="in", item="pooled_projections")
    elif config.get("addition_embed_type") == "text_time":
        yield from block("pooled", port="in", item="added_cond_kwargs.text_embeds")


def children(module: nn.Module, name: str) -> list[nn.Module | None]:
    """Return the modules of a list, which may be missing."""
    return list(getattr(module, name, None) or [])
