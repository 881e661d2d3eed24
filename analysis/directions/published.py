"""Deltas that others published: files of attribute-control (Baumann et al. 2025) as directions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ...models.arguments import checked
from ...models.base import Model
from ...models.errors import MissingFileError, UsageError
from ...models.site import Site
from ...models.store.tensor_file import is_pickled
from ...probes.direction import Direction
from ...probes.directions.token_rows import TokenRows

PREFIX = "tokenwise_delta."
ENCODERS = {"oai_clip_vit_l": "text_encoder", "openclip_g": "text_encoder_2"}
"""What the files call an encoder, and what it is here."""


@checked
def read_delta(model: Model, delta: str | Path | Mapping[str, Any]) -> Direction:
    """Return a published delta as a direction of the subject's rows.

    The files hold one vector for each text encoder, ``tokenwise_delta.oai_clip_vit_l`` [768] and
    ``tokenwise_delta.openclip_g`` [1280], which Stable Diffusion XL reads side by side. They are pickled,
    which is not opened here: give what ``torch.load(path, weights_only=True)`` returns, or a safetensors
    file of it.

    Args:
        model: Stable Diffusion, or Stable Diffusion XL.
        delta: the mapping, with or without its outer key "delta"; or a safetensors file with these names.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for pickled files, other names, and vectors that do not fit the model's encoders.
    """
    found = _vectors(_opened(Path(delta)) if isinstance(delta, str | Path) else delta)
    widths = _widths(model)
    parts = []
    for encoder, width in widths.items():
        v = found.pop(encoder, None)
        if v is not None and v.shape != (width,):
            raise UsageError(
                f"the delta of {encoder} has shape {tuple(v.shape)}, but {model.name} reads {width} "
                "channels of it"
            )
        parts.append(torch.zeros(width) if v is None else v.float().cpu())
    if found and set(found) & set(ENCODERS.values()) and not any(bool(p.any()) for p in parts):
        raise UsageError(f"the delta is of {sorted(found)} alone, and {model.name} reads {sorted(widths)}")
    site = Site(f"{model.input_site.component}/in/text")
    about = {"method": "published delta", "left_out": sorted(found)}
    return Direction({site: torch.cat(parts)[None]}, rows=TokenRows(("subject",)), about=about)


def _opened(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise MissingFileError(f"there is no file {str(path)!r}")
    try:
        return load_file(path)
    except SafetensorError as error:
        if is_pickled(path):
            raise UsageError(
                f"{str(path)!r} is pickled, and pickles can run code; give what "
                "torch.load(path, weights_only=True) returns"
            ) from error
        raise UsageError(f"{str(path)!r} is no safetensors file ({error})") from error


def _vectors(delta: Mapping[str, Any]) -> dict[str, Tensor]:
    inner = delta.get("delta", delta)
    named = {str(k).removeprefix(PREFIX): v for k, v in inner.items()} if isinstance(inner, Mapping) else {}
    known = {ENCODERS[k]: v for k, v in named.items() if k in ENCODERS and isinstance(v, Tensor)}
    if not known:
        raise UsageError(
            f"a delta names {' or '.join(PREFIX + k for k in ENCODERS)}; "
            f"this one has {sorted(map(str, named))}"
        )
    return known


def _widths(model: Model) -> dict[str, int]:
    """How many channels of each text encoder the denoiser reads, in their order."""
    encoders: Mapping[str, Any] = {n: model.components[n] for n in model.text_encoders}
    widths = {name: int(network.config.hidden_size) for name, network in encoders.items()}
    (empty,) = model.encode([""])
    if sum(widths.values()) != empty.embeds.shape[1]:
        raise UsageError(f"{model.name} does not read its text encoders {sorted(widths)} side by side")
    return widths
