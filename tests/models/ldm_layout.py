"""Write a diffusers Stable Diffusion pipeline in the layout of its original code: keys renamed back."""

from typing import Any

from safetensors.torch import save_file

RESNET = (
    ("norm1", "in_layers.0"),
    ("conv1", "in_layers.2"),
    ("norm2", "out_layers.0"),
    ("conv2", "out_layers.3"),
    ("time_emb_proj", "emb_layers.1"),
    ("conv_shortcut", "skip_connection"),
)
UNET_TOP = (
    ("time_embedding.linear_1", "time_embed.0"),
    ("time_embedding.linear_2", "time_embed.2"),
    ("conv_in", "input_blocks.0.0"),
    ("conv_norm_out", "out.0"),
    ("conv_out", "out.2"),
    ("add_embedding.linear_1", "label_emb.0.0"),
    ("add_embedding.linear_2", "label_emb.0.2"),
)
ATTENTION = (
    ("group_norm", "norm"),
    ("to_q", "q"),
    ("to_k", "k"),
    ("to_v", "v"),
    ("to_out.0", "proj_out"),
)


def write_ldm(pipe: Any, path: Any) -> None:
    """Write UNet, autoencoder and text encoder into one safetensors file."""
    state = unet_and_vae(pipe)
    for k, v in pipe.text_encoder.state_dict().items():
        whole = k if k.startswith("text_model.") else f"text_model.{k}"
        state[f"cond_stage_model.transformer.{whole}"] = v
    save_file({k: v.contiguous() for k, v in state.items()}, path)


def unet_and_vae(pipe: Any) -> dict[str, Any]:
    """Return UNet, where there is one, and autoencoder in the layout of latent diffusion's own code."""
    unet = getattr(pipe, "unet", None)
    own = unet.state_dict() if unet else {}
    state = {f"model.diffusion_model.{_unet(k, unet)}": v for k, v in own.items()}
    n = len(pipe.vae.config.block_out_channels)
    for k, v in pipe.vae.state_dict().items():
        conv = ".attentions." in k and v.ndim == 2  # once a convolution of one pixel
        state[f"first_stage_model.{_vae(k, n)}"] = v[:, :, None, None] if conv else v
    return state


def _renamed(key: str, names: Any) -> str:
    for new, old in names:
        key = key.replace(new, old)
    return key


def _unet(key: str, unet: Any) -> str:
    for new, old in UNET_TOP:
        if key.startswith(new + "."):
            return old + key[len(new) :]
    side, rest = key.split(".", 1)
    if side == "mid_block":
        kind, i, tail = rest.split(".", 2)
        place = f"middle_block.{2 * int(i) if kind == 'resnets' else 1}"
        return f"{place}.{_renamed(tail, RESNET) if kind == 'resnets' else tail}"
    block, kind, i, tail = rest.split(".", 3)
    per = unet.config.layers_per_block + 1
    if side == "down_blocks":
        if kind == "downsamplers":
            return f"input_blocks.{(int(block) + 1) * per}.0.{tail.replace('conv', 'op')}"
        place = f"input_blocks.{1 + int(block) * per + int(i)}"
    elif kind == "upsamplers":
        last = (int(block) + 1) * per - 1
        seconds = hasattr(unet.up_blocks[int(block)], "attentions")
        return f"output_blocks.{last}.{2 if seconds else 1}.{tail}"
    else:
        place = f"output_blocks.{int(block) * per + int(i)}"
    return f"{place}.0.{_renamed(tail, RESNET)}" if kind == "resnets" else f"{place}.1.{tail}"


def _vae(key: str, n: int) -> str:
    key = key.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    for i in (0, 1):
        key = key.replace(f"mid_block.resnets.{i}", f"mid.block_{i + 1}")
    if "mid_block.attentions.0" in key:
        return _renamed(key.replace("mid_block.attentions.0", "mid.attn_1"), ATTENTION)
    for i in range(n):
        for new, old in ((f"down_blocks.{i}", f"down.{i}"), (f"up_blocks.{i}", f"up.{n - 1 - i}")):
            if f".{new}." in key:
                key = key.replace(new, old).replace("resnets", "block")
                return key.replace("downsamplers.0", "downsample").replace("upsamplers.0", "upsample")
    return key
