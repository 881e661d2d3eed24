"""From names to modules: one resolver, driven by classes and attributes, for every family.

Never resolves by a literal path, and never takes an attention module's own output for "attention out"
(it holds the residual when ``residual_connection=True``); see docs/sites.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from diffusers.models.attention import AttentionModuleMixin, BasicTransformerBlock
from diffusers.models.attention_processor import Attention
from torch import nn

from .attention import ATTENTION_KINDS
from .site import Site

Port = Literal["in", "out", "sdpa"]
_ATTENTION = (Attention, AttentionModuleMixin)


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


def resolve(components: Mapping[str, nn.Module]) -> dict[Site, Place]:
    """Return every site of a pipeline's components, in network order."""
    found: dict[Site, Place] = {}
    for name, module in components.items():
        if name == "unet":
            found.update(_unet(name, module))
        elif name.startswith("text_encoder"):
            found.update(_text_encoder(name, module))
    return found


class _Block:
    """Yields the sites of one block: ``block(kind, submodule path, port, item)``."""

    def __init__(self, component: str, root: nn.Module, block: str, path: str) -> None:
        self.component, self.root, self.block, self.path = component, root, block, path
        self.module = root.get_submodule(path)

    def __call__(self, kind: str, sub: str = "", port: Port = "out", item: int | str | None = None) -> Found:
        path = ".".join(p for p in (self.path, sub) if p)
        yield (
            Site(f"{self.component}/{self.block}/{kind}"),
            Place(self.root.get_submodule(path), port, item, path),
        )


def _unet(name: str, unet: nn.Module) -> Found:
    yield from _Block(name, unet, "in", "conv_in")("conv.out")
    yield from _Block(name, unet, "temb", "time_embedding")("out")
    for block, path in _unet_groups(unet):
        yield from _unet_group(name, unet, block, path)
    yield from _Block(name, unet, "out", "conv_out")("eps")


def _unet_groups(unet: nn.Module) -> Iterator[tuple[str, str]]:
    for i, _ in enumerate(_children(unet, "down_blocks")):
        yield f"down.{i}", f"down_blocks.{i}"
    if getattr(unet, "mid_block", None) is not None:
        yield "mid", "mid_block"
    for i, _ in enumerate(_children(unet, "up_blocks")):
        yield f"up.{i}", f"up_blocks.{i}"


def _unet_group(name: str, unet: nn.Module, group: str, path: str) -> Found:
    module = unet.get_submodule(path)
    for j, _ in enumerate(_children(module, "resnets")):
        yield from _resnet(_Block(name, unet, f"{group}.res.{j}", f"{path}.resnets.{j}"))
    for j, attention in enumerate(_children(module, "attentions")):
        if attention is None:
            continue
        block = _Block(name, unet, f"{group}.attn.{j}", f"{path}.attentions.{j}")
        yield from block("resid.pre", port="in", item=0)
        if isinstance(attention, _ATTENTION):
            yield from _attention(block, "self_attn", "")
        for k, _ in enumerate(_children(attention, "transformer_blocks")):
            sub = f"{path}.attentions.{j}.transformer_blocks.{k}"
            yield from _transformer_block(_Block(name, unet, f"{group}.attn.{j}.{k}", sub))
        yield from block("resid.post", item=0)
    for attr, label in (("downsamplers", "downsample"), ("upsamplers", "upsample")):
        if _children(module, attr):
            yield from _Block(name, unet, f"{group}.{label}", f"{path}.{attr}.0")("out")


def _resnet(block: _Block) -> Found:
    yield from block("resid.pre", port="in", item=0)
    if getattr(block.module, "time_emb_proj", None) is not None:
        yield from block("resnet.temb", "time_emb_proj")
    yield from block("resnet.out", "conv2")
    yield from block("resid.post")


def _transformer_block(block: _Block) -> Found:
    """A BasicTransformerBlock: self-attention, cross-attention and MLP, each added to the stream."""
    module = block.module
    yield from block("resid.pre", port="in", item="hidden_states")
    if isinstance(getattr(module, "attn1", None), _ATTENTION):
        kind = "cross_attn" if getattr(module.attn1, "is_cross_attention", False) else "self_attn"
        yield from _attention(block, kind, "attn1")
    crosses = isinstance(getattr(module, "attn2", None), _ATTENTION)
    if crosses and isinstance(module, BasicTransformerBlock) and module.norm2 is not None:
        yield from block("resid.mid1", "norm2", "in", 0)
    if crosses:
        yield from _attention(block, "cross_attn", "attn2")
    if getattr(module, "norm3", None) is not None:
        yield from block("resid.mid2" if crosses else "resid.mid", "norm3", "in", 0)
    yield from block("mlp.act", "ff.net.2", "in", 0)
    yield from block("mlp.out", "ff")
    yield from block("resid.post")


def _attention(block: _Block, kind: str, sub: str) -> Found:
    dot = f"{sub}." if sub else ""
    for p in "qkv":
        yield from block(f"{kind}.{p}_proj", f"{dot}to_{p}")
    for p in ATTENTION_KINDS:
        yield from block(f"{kind}.{p}", sub, "sdpa", p)
    yield from block(f"{kind}.out", f"{dot}to_out.0")


def _text_encoder(name: str, encoder: nn.Module) -> Found:
    """CLIP text towers; transformers 5 flattened one of the two classes, so look for the layers."""
    paths = [p for p, m in encoder.named_modules() if type(m).__name__ == "CLIPEncoderLayer"]
    embeddings = [p for p, m in encoder.named_modules() if type(m).__name__ == "CLIPTextEmbeddings"]
    for path in embeddings:
        yield from _Block(name, encoder, "embed", path)("tokens", "token_embedding")
        yield from _Block(name, encoder, "embed", path)("out")
    for i, path in enumerate(paths):
        block = _Block(name, encoder, f"layer.{i}", path)
        yield from block("resid.pre", port="in", item="hidden_states")
        for p in "qkv":
            yield from block(f"self_attn.{p}_proj", f"self_attn.{p}_proj")
        for p in ATTENTION_KINDS:
            yield from block(f"self_attn.{p}", "self_attn", "sdpa", p)
        yield from block("self_attn.out", "self_attn.out_proj")
        yield from block("resid.mid", "layer_norm2", "in", 0)
        yield from block("mlp.act", "mlp.fc2", "in", 0)
        yield from block("mlp.out", "mlp.fc2")
        yield from block("resid.post", item=0)
    norms = [p for p, _ in encoder.named_modules() if p.rsplit(".", 1)[-1] == "final_layer_norm"]
    for path in norms:
        yield from _Block(name, encoder, "out", path)("embeds")


def _children(module: nn.Module, name: str) -> list[nn.Module | None]:
    return list(getattr(module, name, None) or [])
