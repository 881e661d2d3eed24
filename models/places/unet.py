"""The sites of UNets."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from torch import nn

from .blocks import ATTENTION, Block, Found, attention, children, reads, transformer_block


def unet_places(name: str, unet: nn.Module) -> Found:
    """Every site of a UNet2DModel or UNet2DConditionModel, in network order."""
    yield from reads(name, unet)
    yield from Block(name, unet, "temb", "time_embedding")("out")
    yield from Block(name, unet, "in", "conv_in")("conv.out")
    for block, path in _unet_groups(unet):
        yield from _unet_group(name, unet, block, path)
    yield from Block(name, unet, "out", "conv_out")("eps")


def _unet_groups(unet: nn.Module) -> Iterator[tuple[str, str]]:
    for i, _ in enumerate(children(unet, "down_blocks")):
        yield f"down.{i}", f"down_blocks.{i}"
    if getattr(unet, "mid_block", None) is not None:
        yield "mid", "mid_block"
    for i, _ in enumerate(children(unet, "up_blocks")):
        yield f"up.{i}", f"up_blocks.{i}"


def _unet_group(name: str, unet: nn.Module, group: str, path: str) -> Found:
    module = unet.get_submodule(path)
    pairs = itertools.zip_longest(children(module, "resnets"), children(module, "attentions"))
    for j, (resnet, inner) in enumerate(pairs):
        if resnet is not None:
            yield from _resnet(Block(name, unet, f"{group}.res.{j}", f"{path}.resnets.{j}"))
        if inner is not None:
            yield from _attended(Block(name, unet, f"{group}.attn.{j}", f"{path}.attentions.{j}"))
    for attr, label in (("downsamplers", "downsample"), ("upsamplers", "upsample")):
        if children(module, attr):
            yield from Block(name, unet, f"{group}.{label}", f"{path}.{attr}.0")("out")


def _attended(block: Block) -> Found:
    yield from block("resid.pre", port="in", item=0)
    if isinstance(block.module, ATTENTION):
        yield from attention(block, "self_attn", "")
    for k, _ in enumerate(children(block.module, "transformer_blocks")):
        sub = f"{block.path}.transformer_blocks.{k}"
        yield from transformer_block(Block(block.component, block.root, f"{block.block}.{k}", sub))
    yield from block("resid.post", item=0)


def _resnet(block: Block) -> Found:
    yield from block("resid.pre", port="in", item=0)
    if getattr(block.module, "time_emb_proj", None) is not None:
        yield from block("resnet.temb", "time_emb_proj")
    yield from block("resnet.out", "conv2")
    yield from block("resid.post")
