"""UNets and autoencoders in the layout of latent diffusion's own code: diffusers' names turned back.

It is the layout of one-file checkpoints of Stable Diffusion 1, 2 and XL, and of the autoencoder of 3; and of
the names that LoRAs for XL's UNet go by.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from ..errors import UsageError

Names = Iterable[tuple[str, str]]

_RESNET = (
    ("norm1.", "in_layers.0."),
    ("conv1.", "in_layers.2."),
    ("norm2.", "out_layers.0."),
    ("conv2.", "out_layers.3."),
    ("time_emb_proj.", "emb_layers.1."),
    ("conv_shortcut.", "skip_connection."),
)
_UNET = (
    ("time_embedding.linear_1.", "time_embed.0."),
    ("time_embedding.linear_2.", "time_embed.2."),
    ("add_embedding.linear_1.", "label_emb.0.0."),
    ("add_embedding.linear_2.", "label_emb.0.2."),
    ("conv_in.", "input_blocks.0.0."),
    ("conv_norm_out.", "out.0."),
    ("conv_out.", "out.2."),
)
_ATTENTION = (
    ("group_norm", "norm"),
    ("to_q", "q"),
    ("to_k", "k"),
    ("to_v", "v"),
    ("to_out.0", "proj_out"),
)


def unet_state(unet: Any) -> dict[str, Tensor]:
    """Return the weights of a UNet by their original names."""
    return {unet_key(name, unet): weight for name, weight in unet.state_dict().items()}


def unet_key(name: str, unet: Any) -> str:
    """Return the original name of a weight of a UNet.

    Raises:
        UsageError: if the original code has no such weight.
    """
    started = next((old + name[len(new) :] for new, old in _UNET if name.startswith(new)), None)
    if started:
        return started
    side, _, rest = name.partition(".")
    try:
        if side == "mid_block":
            kind, i, tail = rest.split(".", 2)
            place = f"middle_block.{2 * int(i) if kind == 'resnets' else 1}"
            return f"{place}.{_started(tail, _RESNET) if kind == 'resnets' else tail}"
        block, kind, i, tail = rest.split(".", 3)
        place = _place(unet, side, kind, int(block), int(i))
    except (ValueError, KeyError, TypeError):
        raise UsageError(
            f"unet.{name} has no place in the original layout; export the pipeline instead: "
            "export.pipeline(model, edit, path)"
        ) from None
    if kind == "resnets":
        tail = _started(tail, _RESNET)
    return f"{place}.{tail.replace('conv', 'op') if kind == 'downsamplers' else tail}"


def _place(unet: Any, side: str, kind: str, block: int, i: int) -> str:
    """Down and up the original counts layers, not blocks; what lies in a layer is counted in turn."""
    down, per = side == "down_blocks", unet.config.layers_per_block + 1
    if kind in ("downsamplers", "upsamplers"):
        last = (block + 1) * per - (0 if down else 1)
        before = 0 if down else 1 + hasattr(unet.up_blocks[block], "attentions")
    else:
        last, before = block * per + i + (1 if down else 0), {"resnets": 0, "attentions": 1}[kind]
    return f"{ {'down_blocks': 'input_blocks', 'up_blocks': 'output_blocks'}[side] }.{last}.{before}"


def vae_state(vae: Any) -> dict[str, Tensor]:
    """Return the weights of an autoencoder by their original names."""
    n, made = len(vae.config.block_out_channels), dict[str, Tensor]()
    for name, weight in vae.state_dict().items():
        once_a_convolution = ".attentions." in name and weight.ndim == 2
        made[_vae_key(name, n)] = weight[:, :, None, None] if once_a_convolution else weight
    return made


def _vae_key(name: str, n: int) -> str:
    name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    for i in (0, 1):
        name = name.replace(f"mid_block.resnets.{i}", f"mid.block_{i + 1}")
    if "mid_block.attentions.0" in name:
        name = name.replace("mid_block.attentions.0", "mid.attn_1")
        for new, old in _ATTENTION:
            name = name.replace(new, old)
        return name
    for i in range(n):
        for new, old in ((f".down_blocks.{i}.", f".down.{i}."), (f".up_blocks.{i}.", f".up.{n - 1 - i}.")):
            if new in name:
                name = name.replace(new, old).replace("resnets", "block")
                return name.replace("downsamplers.0", "downsample").replace("upsamplers.0", "upsample")
    return name


def _started(name: str, names: Names) -> str:
    return next((old + name[len(new) :] for new, old in names if name.startswith(new)), name)
