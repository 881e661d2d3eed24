"""Dictionaries in the layouts of others: SAELens, and the released checkpoints of sdxl-unbox."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ...models.adapter import Adapter
from ...models.arguments import checked
from ...models.errors import MissingFileError, UsageError
from ...models.site import Site
from ...models.store.disk import new_folder
from .channels import Channels
from .value import Dictionary

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
UNBOX_CONFIG, UNBOX_WEIGHTS, UNBOX_PICKLE = "config.json", "state_dict.safetensors", "state_dict.pth"
ARCHITECTURES = ("topk", "jumprelu", "standard", "transcoder", "jumprelu_transcoder")
_PLAIN = {"normalize_activations": "none", "reshape_activations": "none"}
_ANEW = (
    "state = torch.load('state_dict.pth', weights_only=True); state = state.get('state_dict', state); "
    f"safetensors.torch.save_file({{k: v.contiguous() for k, v in state.items()}}, {UNBOX_WEIGHTS!r})"
)
_NEEDED = ("W_enc", "W_dec", "b_enc", "b_dec")


@checked
def write_sae_lens(dictionary: Dictionary, folder: str | Path) -> None:
    """Write a dictionary as ``sae_lens`` (6) does: ``cfg.json`` and ``sae_weights.safetensors``.

    Top-k becomes ``topk``, thresholds become ``jumprelu``; the bias of the input is folded into that of the
    encoder. ``sae_lens.SAE.load_from_disk(folder)`` opens it; its last axis is the channels.

    Raises:
        ValueError: for what that layout has no place for: levels, whole maps, a transcoder of top-k.
        FileExistsError: if the folder is there already.
    """
    channels = dictionary.channels
    if dictionary.levels or channels.kernel == "map":
        what = f"{len(dictionary.levels)} levels of biases" if dictionary.levels else "features that are maps"
        raise UsageError(f"SAELens has no place for {what}; Dictionary.save keeps all of it")
    if channels.kind == "transcoder" and dictionary.threshold is None:
        raise UsageError(
            "SAELens knows transcoders with thresholds, not with top-k; train with "
            "Learning(selection='batch-top-k'), or use Dictionary.save"
        )
    bias = dictionary.encoder_bias[0] - dictionary.encoder @ dictionary.input_bias[0]
    tensors = {
        "W_enc": dictionary.encoder.mT,
        "b_enc": bias,
        "W_dec": dictionary.decoder,
        "b_dec": dictionary.output_bias[0],
    }
    config: dict[str, Any] = {
        "architecture": "topk" if dictionary.threshold is None else "jumprelu",
        "d_in": dictionary.encoder.shape[1],
        "d_sae": dictionary.width,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": False,
        **_PLAIN,
    }
    if dictionary.threshold is None:
        config |= {"k": dictionary.k, "rescale_acts_by_decoder_norm": False}
    else:
        tensors["threshold"] = dictionary.threshold
    if channels.kind == "transcoder":
        config |= {"architecture": "jumprelu_transcoder", "d_out": dictionary.decoder.shape[1]}
    source = None if channels.source is None else str(channels.source)
    own = {"site": str(channels.site), "kind": channels.kind, "source": source, "k": dictionary.k}
    config["metadata"] = {"hook_name": source or str(channels.site), "denoscope": own}
    with new_folder(Path(folder)) as part:
        part.mkdir()
        save_file({name: t.cpu().contiguous() for name, t in tensors.items()}, part / WEIGHTS)
        (part / CONFIG).write_text(json.dumps(config, indent=1) + "\n")


@checked
def read_sae_lens(
    folder: str | Path, model: Adapter, site: Site | str | None = None, source: Site | str | None = None
) -> Dictionary:
    """Read a dictionary that ``sae_lens`` wrote.

    Args:
        folder: with ``cfg.json`` and ``sae_weights.safetensors``.
        model: whose site it is of; its layout says where the channels are. Its weights are not compared.
        site: where; None asks the file, if ``write_sae_lens`` wrote it.
        source: what a transcoder reads.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: for architectures and settings that are not read; the message names them.
    """
    folder = Path(folder)
    config, tensors = _json(folder / CONFIG), _tensors(folder / WEIGHTS)
    architecture = config.get("architecture")
    other = {k: config[k] for k, v in _PLAIN.items() if config.get(k, v) != v}
    if architecture not in ARCHITECTURES or other or not set(_NEEDED) <= set(tensors):
        lacking = sorted(set(_NEEDED) - set(tensors))
        raise UsageError(
            f"{folder} has the architecture {architecture!r}, {other or 'no scaling'} and lacks "
            f"{lacking or 'nothing'}; what is read is {', '.join(ARCHITECTURES)}, without scaling"
        )
    metadata = config.get("metadata")
    own = metadata.get("denoscope", {}) if isinstance(metadata, dict) else {}
    if site is None and not own:
        raise UsageError(f"{folder} does not say which site of {model.name} it is of; give site=")
    kind: Any = own.get("kind") or ("transcoder" if "transcoder" in architecture else "state")
    channels = Channels.of(model, site or own["site"], kind=kind, source=source or own.get("source"))
    return _from_sae_lens(channels, config, tensors, own)


def _from_sae_lens(
    channels: Channels, config: Mapping[str, Any], tensors: Mapping[str, Tensor], own: Mapping[str, Any]
) -> Dictionary:
    encoder, decoder, bias = tensors["W_enc"].mT.float(), tensors["W_dec"].float(), tensors["b_enc"].float()
    if config.get("rescale_acts_by_decoder_norm"):  # what counts is the strength with rows of length 1
        norm = decoder.norm(dim=-1)
        encoder, decoder, bias = encoder * norm[:, None], decoder / norm[:, None], bias * norm
    out = tensors["b_dec"].float()
    takes_off = config.get("apply_b_dec_to_input", config["architecture"] in ("topk", "jumprelu", "standard"))
    top = config["architecture"] == "topk"
    threshold = None if top else tensors.get("threshold", torch.zeros(len(decoder))).float()
    return Dictionary(
        channels,
        encoder,
        decoder,
        bias[None],
        out[None] if takes_off else torch.zeros(1, encoder.shape[1]),
        out[None],
        k=int(config["k"]) if top else int(own.get("k", len(decoder))),
        threshold=threshold,
        record={"read from": "sae_lens", "config": {k: v for k, v in config.items() if k != "metadata"}},
    )


@checked
def read_sdxl_unbox(folder: str | Path, model: Adapter, site: Site | str) -> Dictionary:
    """Read a checkpoint of sdxl-unbox (Surkov et al. 2024): ``config.json`` beside its weights.

    They encode what a transformer block of SDXL-Turbo adds: ``unet.down_blocks.2.attentions.1`` is the site
    ``unet/down.2.attn.1/resid.post``, whose source ``unet/down.2.attn.1/resid.pre`` is found by itself.

    Args:
        folder: with ``config.json`` and ``state_dict.safetensors``. The released weights are pickled, and
            pickles can run code: the error says how to write them anew.
        model: whose site it is of; its weights are not compared.
        site: the output of the block.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: for pickles, and files of something else.
    """
    folder, site = Path(folder), Site(str(site))
    if (folder / UNBOX_PICKLE).exists() and not (folder / UNBOX_WEIGHTS).exists():
        raise UsageError(
            f"{folder / UNBOX_PICKLE} is pickled, and pickles can run code. Where you trust it, write it "
            f"anew: {_ANEW}"
        )
    config, tensors = _json(folder / UNBOX_CONFIG), _tensors(folder / UNBOX_WEIGHTS)
    needed = ("encoder.weight", "decoder.weight", "pre_bias", "latent_bias")
    lacking = [n for n in needed if n not in tensors] + [n for n in ("k", "d_model") if n not in config]
    if lacking or site.kind != "resid.post":
        what = f"it lacks {', '.join(lacking)}" if lacking else f"{site} is no output of a block (resid.post)"
        raise UsageError(f"{folder} cannot be read as a checkpoint of sdxl-unbox: {what}")
    source = str(site).replace("resid.post", "resid.pre")
    bias = tensors["pre_bias"][None].float()
    return Dictionary(
        Channels.of(model, site, kind="update", source=source),
        tensors["encoder.weight"].float(),
        tensors["decoder.weight"].mT.float(),
        tensors["latent_bias"][None].float(),
        bias,
        bias,
        k=int(config["k"]),
        record={"read from": "sdxl-unbox", "config": config},
    )


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise MissingFileError(f"there is no {path}; name the folder that holds it")
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise UsageError(f"{path} is no JSON ({error})") from error
    if not isinstance(found, dict):
        raise UsageError(f"{path} holds a {type(found).__name__}, where settings by name are read")
    return found


def _tensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise MissingFileError(f"there is no {path}; name the folder that holds it")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise UsageError(f"{path} is truncated or no safetensors ({error})") from error
