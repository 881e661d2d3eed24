"""Write tiny pipelines in the layouts of their first publication, for families beside Stable Diffusion 1."""

from typing import Any

import torch
from safetensors.torch import save_file

from tests.models.ldm_layout import unet_and_vae

CLIP_LAYER = (
    ("self_attn.out_proj", "attn.out_proj"),
    ("layer_norm1", "ln_1"),
    ("layer_norm2", "ln_2"),
    ("fc1", "c_fc"),
    ("fc2", "c_proj"),
)
SD3_TOP = (
    ("pos_embed.proj", "x_embedder.proj"),
    ("time_text_embed.timestep_embedder.linear_1", "t_embedder.mlp.0"),
    ("time_text_embed.timestep_embedder.linear_2", "t_embedder.mlp.2"),
    ("time_text_embed.text_embedder.linear_1", "y_embedder.mlp.0"),
    ("time_text_embed.text_embedder.linear_2", "y_embedder.mlp.2"),
    ("pos_embed.pos_embed", "pos_embed"),
    ("context_embedder", "context_embedder"),
    ("proj_out", "final_layer.linear"),
    ("norm_out.linear", "final_layer.adaLN_modulation.1"),
)
SD3_BLOCK = (
    ("attn.to_out.0", "x_block.attn.proj"),
    ("attn2.to_out.0", "x_block.attn2.proj"),
    ("attn.to_add_out", "context_block.attn.proj"),
    ("attn.norm_q", "x_block.attn.ln_q"),
    ("attn.norm_k", "x_block.attn.ln_k"),
    ("attn.norm_added_q", "context_block.attn.ln_q"),
    ("attn.norm_added_k", "context_block.attn.ln_k"),
    ("attn2.norm_q", "x_block.attn2.ln_q"),
    ("attn2.norm_k", "x_block.attn2.ln_k"),
    ("norm1.linear", "x_block.adaLN_modulation.1"),
    ("norm1_context.linear", "context_block.adaLN_modulation.1"),
    ("ff.net.0.proj", "x_block.mlp.fc1"),
    ("ff.net.2", "x_block.mlp.fc2"),
    ("ff_context.net.0.proj", "context_block.mlp.fc1"),
    ("ff_context.net.2", "context_block.mlp.fc2"),
)
SD3_JOINED = (
    ("attn.to_{}", "x_block.attn.qkv"),
    ("attn2.to_{}", "x_block.attn2.qkv"),
    ("attn.add_{}_proj", "context_block.attn.qkv"),
)


def write_sdxl(pipe: Any, path: Any) -> None:
    """UNet, autoencoder, the first text encoder as CLIP's, the second as OpenCLIP's."""
    state = unet_and_vae(pipe)
    for k, v in pipe.text_encoder.state_dict().items():
        state[f"conditioner.embedders.0.transformer.{_tower(k)}"] = v
    own = {_tower(k).removeprefix("text_model."): v for k, v in pipe.text_encoder_2.state_dict().items()}
    state |= {f"conditioner.embedders.1.model.{k}": v for k, v in _open_clip(own).items()}
    save_file({k: v.contiguous() for k, v in state.items()}, path)


def write_sd3(pipe: Any, path: Any) -> None:
    """The transformer with q, k and v in one, the autoencoder, three text encoders by prefix."""
    state = unet_and_vae(pipe)
    state |= {f"model.diffusion_model.{k}": v for k, v in _sd3(pipe.transformer).items()}
    for part, name in (("text_encoder", "clip_l"), ("text_encoder_2", "clip_g"), ("text_encoder_3", "t5xxl")):
        for k, v in getattr(pipe, part).state_dict().items():
            whole = k if name == "t5xxl" or k.startswith("text_projection") else _tower(k)
            state[f"text_encoders.{name}.transformer.{whole}"] = v.clone()
    save_file({k: v.contiguous() for k, v in state.items()}, path)


def _tower(key: str) -> str:
    return key if key.startswith(("text_model.", "text_projection")) else f"text_model.{key}"


def _open_clip(own: dict[str, Any]) -> dict[str, Any]:
    top = {
        "embeddings.position_embedding.weight": "positional_embedding",
        "embeddings.token_embedding.weight": "token_embedding.weight",
        "final_layer_norm.weight": "ln_final.weight",
        "final_layer_norm.bias": "ln_final.bias",
    }
    made = {new: own[old] for old, new in top.items()} | {"text_projection": own["text_projection.weight"].T}
    for k, v in own.items():
        if not k.startswith("encoder.layers."):
            continue
        i, rest = k.removeprefix("encoder.layers.").split(".", 1)
        block = f"transformer.resblocks.{i}"
        if rest.startswith("self_attn.q_proj"):
            kind = rest.rsplit(".", 1)[-1]
            parts = [own[f"encoder.layers.{i}.self_attn.{p}_proj.{kind}"] for p in "qkv"]
            made[f"{block}.attn.in_proj_{kind}"] = torch.cat(parts)
        for new, old in CLIP_LAYER:
            if rest.startswith((f"{new}.", f"mlp.{new}.")):
                made[f"{block}.{rest.replace(new, old)}"] = v
    return made


def _sd3(transformer: Any) -> dict[str, Any]:
    own, last = transformer.state_dict(), len(transformer.transformer_blocks) - 1
    swapped = ("norm_out.linear", f"transformer_blocks.{last}.norm1_context.linear")
    own = {k: torch.cat(v.chunk(2)[::-1]) if k.startswith(swapped) else v for k, v in own.items()}
    made = {}
    for k, v in own.items():
        for new, old in SD3_TOP:
            if k == new or k.startswith(f"{new}."):
                made[old + k[len(new) :]] = v
        if not k.startswith("transformer_blocks."):
            continue
        _, i, rest = k.split(".", 2)
        kind = rest.rsplit(".", 1)[-1]
        for new, old in SD3_BLOCK:
            if rest == f"{new}.{kind}":
                made[f"joint_blocks.{i}.{old}.{kind}"] = v
        for new, old in SD3_JOINED:
            if rest == f"{new.format('q')}.{kind}":
                names = [f"transformer_blocks.{i}.{new.format(p)}.{kind}" for p in "qkv"]
                made[f"joint_blocks.{i}.{old}.{kind}"] = torch.cat([own[n] for n in names])
    return made
