"""The sites of text encoders: CLIP towers, T5, Gemma 2, the BERT of latent diffusion."""

from __future__ import annotations

from torch import nn

from .attention import ATTENTION_KINDS
from .blocks import Block, Found


def text_places(name: str, encoder: nn.Module) -> Found:
    """Every site of a text encoder, in network order.

    Layers are found by their class: transformers 5 has two layouts of the CLIP tower alone.
    """
    layers = [
        (p, _LAYERS[type(m).__name__]) for p, m in encoder.named_modules() if type(m).__name__ in _LAYERS
    ]
    yield from _embeddings(name, encoder)
    for i, (path, sites) in enumerate(layers):
        yield from sites(Block(name, encoder, f"layer.{i}", path))
    norms = ("final_layer_norm", "layer_norm", "norm")
    inside = tuple(f"{path}." for path, _ in layers)
    for path, _ in encoder.named_modules():
        if path.rsplit(".", 1)[-1] in norms and not path.startswith(inside):
            yield from Block(name, encoder, "out", path)("embeds")
    if getattr(encoder, "text_projection", None) is not None:
        yield from Block(name, encoder, "out", "text_projection")("pooled")


def _embeddings(name: str, encoder: nn.Module) -> Found:
    for path, module in encoder.named_modules():
        block = Block(name, encoder, "embed", path)
        if type(module).__name__ == "CLIPTextEmbeddings":
            yield from block("tokens", "token_embedding")
            yield from block("out")
        elif path.rsplit(".", 1)[-1] == "embed_tokens":
            yield from block("tokens")


def _clip(block: Block) -> Found:
    yield from block("resid.pre", port="in", item="hidden_states")
    yield from _projections(block, "self_attn", "{}_proj")
    yield from block("self_attn.out", "self_attn.out_proj")
    yield from block("resid.mid", "layer_norm2", "in", 0)
    yield from block("mlp.act", "mlp.fc2", "in", 0)
    yield from block("mlp.out", "mlp.fc2")
    yield from block("resid.post", item=0)


def _t5(block: Block) -> Found:
    yield from block("resid.pre", port="in", item="hidden_states")
    yield from _projections(block, "layer.0.SelfAttention", "{}")
    yield from block("self_attn.out", "layer.0.SelfAttention.o")
    yield from block("resid.mid", "layer.1.layer_norm", "in", 0)
    yield from block("mlp.act", "layer.1.DenseReluDense.wo", "in", 0)
    yield from block("mlp.out", "layer.1.DenseReluDense.wo")
    yield from block("resid.post", item=0)


def _bert(block: Block) -> Found:
    """The layer of latent diffusion's own BERT; it computes attention itself, so its inside has no sites."""
    yield from block("resid.pre", port="in", item="hidden_states")
    for p in "qkv":
        yield from block(f"self_attn.{p}_proj", f"self_attn.{p}_proj")
    yield from block("self_attn.out", "self_attn.out_proj")
    yield from block("resid.mid", "final_layer_norm", "in", 0)
    yield from block("mlp.act", "fc2", "in", 0)
    yield from block("mlp.out", "fc2")
    yield from block("resid.post", item=0)


def _gemma(block: Block) -> Found:
    """Gemma 2: what attention and MLP give goes through a norm first; scores are capped, so never fused."""
    yield from block("resid.pre", port="in", item="hidden_states")
    for p in "qkv":
        yield from block(f"self_attn.{p}_proj", f"self_attn.{p}_proj")
    yield from block("self_attn.out", "self_attn.o_proj")
    yield from block("self_attn.normed", "post_attention_layernorm")
    yield from block("resid.mid", "pre_feedforward_layernorm", "in", 0)
    yield from block("mlp.act", "mlp.down_proj", "in", 0)
    yield from block("mlp.out", "mlp.down_proj")
    yield from block("mlp.normed", "post_feedforward_layernorm")
    yield from block("resid.post")


def _projections(block: Block, sub: str, projection: str) -> Found:
    for p in "qkv":
        yield from block(f"self_attn.{p}_proj", f"{sub}.{projection.format(p)}")
    for p in ATTENTION_KINDS:
        yield from block(f"self_attn.{p}", sub, "sdpa", p)


_LAYERS = {
    "CLIPEncoderLayer": _clip,
    "T5Block": _t5,
    "Gemma2DecoderLayer": _gemma,
    "LDMBertEncoderLayer": _bert,
}
