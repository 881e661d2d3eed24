"""The sites of UNets."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from .blocks import ATTENTION, Block, Found, attention, children, reads, transformer_block


def unet_places(name: str, unet: nn.Module) -> Found:
    """Every site of a UNet2DModel or UNet2DConditionModel, in network order."""
    yield from reads(name, unet)
    yield from Block(name, unet, "in", "conv_in")("conv.out")
    yield from Block(name, unet, "temb", "time_embedding")("out")
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
    for j, _ in enumerate(children(module, "resnets")):
        yield from _resnet(Block(name, unet, f"{group}.res.{j}", f"{path}.resnets.{j}"))
    for j, inner in enumerate(children(module, "attentions")):
        if inner is None:
            continue
        block = Block(name, unet, f"{group}.attn.{j}", f"{path}.attentions.{j}")
        yield from block("resid.pre", port="in", item=0)
        if isinstance(inner, ATTENTION):
            yield from attention(block, "self_attn", "")
        for k, _ in enumerate(children(inner, "transformer_blocks")):
            sub = f"{path}.attentions.{j}.transformer_blocks.{k}"
            yield from transformer_block(Block(name, unet, f"{group}.attn.{j}.{k}", sub))
        yield from block("resid.post", item=0)
    for attr, label in (("downsamplers", "downsample"), ("upsamplers", "upsample")):
        if children(module, attr):
            yield from Block(name, unet, f"{group}.{label}", f"{path}.{attr}.0")("out")


def _resnet(block: Block) -> Found:
    yield from block("resid.pre", port="in", item=0)
    if getattr(block.module, "time_emb_proj", None) is not None:
        yield from block("resnet.temb", "time_emb_proj")
    yield from block("resnet.out", "conv2")
    yield from block("resid.post")
