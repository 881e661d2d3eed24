"""An edit as a LoRA, in the formats of diffusers and of kohya's scripts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import pandas as pd
import safetensors.torch
import torch
from torch import Tensor, nn

from ...models.arguments import checked
from ...models.base import Model
from ...models.errors import UsageError
from ...models.store.disk import write_bytes
from ..edit import Edit
from ..lowrank import LowRank, Spectrum, factored
from .carrying import check_for
from .lora_names import Namer, namer

INSTEAD = "export the pipeline instead, or save the edit: export.pipeline(model, edit, path), edit.save(path)"
HEADER = "denoscope.lora"


@checked
def lora(
    model: Model,
    edit: Edit,
    path: str | Path,
    *,
    rank: int | None = None,
    format: Literal["diffusers", "kohya"] = "diffusers",
) -> pd.DataFrame:
    """Write an edit as a LoRA: each change as the product of two factors, nearest to it of its rank.

    Weights of linear layers and convolutions, where the pipeline's ``load_lora_weights`` reads them; biases,
    norms, embeddings and the projection of pooled text have no place. In kohya's format all factors of a
    network are filled up with zeros to one rank, ``alpha``: diffusers scales such files wrongly where ranks
    differ. Of those it reads itself Stable Diffusion's and XL's whole, of FLUX's attention and embedders and
    CLIP, none of 3's: these are for ComfyUI.

    Args:
        model: the model the edit was made for.
        edit: what to write.
        path: the ``.safetensors`` file; it appears whole or not at all, and an older one is replaced.
        rank: of each factor, at most; None is the numerical rank of each change, so nothing but rounding to
            float32 is lost.
        format: "diffusers" (peft's factors) or "kohya" (A1111, ComfyUI, sd-scripts; Stable Diffusion, XL, 3
            and FLUX).

    Returns:
        By weight: numerical ``rank`` of the change, how many directions were ``kept``, and the ``energy``
        that they hold: share of the square of its Frobenius norm. It is in the file's header as well.

    Raises:
        ValueError: for changes that the format cannot hold, all named; a rank below 1; a path of another
            kind; an edit of other weights; a pipeline that reads no LoRAs.
        RuntimeError: if another LoRA or fused projections lie beside the weights.
        OSError: if it cannot be written; an older file stays as it was.

    >>> import tempfile
    >>> from denoscope.editing import quickfix
    >>> from denoscope.models.synthetic.tiny import tiny_sd
    >>> model = load(tiny_sd())
    >>> edit = quickfix(model, {"cat": "dog"})
    >>> with tempfile.TemporaryDirectory() as there:
    ...     told = lora(model, edit, Path(there) / "lora.safetensors", rank=3)
    >>> told.kept.tolist(), bool(told.energy.min() > 0.9)
    ([3], True)
    """
    target = Path(path)
    if target.suffix != ".safetensors":
        raise UsageError(f"path is {str(path)!r}; LoRAs end with .safetensors, by which others know them")
    if rank is not None and rank < 1:
        raise UsageError(f"rank is {rank}; give 1 or more, or leave it out for the numerical rank")
    check_for(edit, model)
    names = namer(model, format)
    layers = _layers(model, edit, names)
    cuts = {name: factored(delta) for name, delta in edit.deltas.items()}
    told = {name: _told(spectrum, rank) for name, (_, spectrum) in cuts.items()}
    ranks = {name: max(kept, 1) for name, (_, kept, _) in told.items()}
    if names.alpha:
        ranks = _levelled(ranks)
    state = dict[str, Tensor]()
    for name, (factors, _) in cuts.items():
        parts = _parts(factors, layers[name], told[name][1], ranks[name])
        state |= names.tensors(name.removesuffix(".weight"), *parts)
    frame = pd.DataFrame.from_dict(told, orient="index", columns=["rank", "kept", "energy"])
    about = {"edit": edit.id, "model": edit.model, "weights": told}
    # one entry: safetensors writes several in random order
    write_bytes(target, safetensors.torch.save(state, {HEADER: json.dumps(about, sort_keys=True)}))
    return frame.rename_axis("weight")


def _told(spectrum: Spectrum, rank: int | None) -> tuple[int, int, float]:
    kept = spectrum.rank if rank is None else min(rank, spectrum.rank)
    return spectrum.rank, kept, spectrum.energy(kept) if spectrum.rank else 1.0


def _levelled(ranks: Mapping[str, int]) -> dict[str, int]:
    """One rank for each network: the largest of its changes."""
    most = dict[str, int]()
    for name, rank in ranks.items():
        part = name.partition(".")[0]
        most[part] = max(rank, most.get(part, 0))
    return {name: most[name.partition(".")[0]] for name in ranks}


def _parts(factors: LowRank, layer: nn.Module, kept: int, rank: int) -> tuple[Tensor, Tensor]:
    """Down [rank, in] and up [out, rank] in float32; of convolutions with the kernel's axes."""
    down = torch.zeros(rank, factors.right.shape[1])
    up = torch.zeros(factors.left.shape[0], rank)
    down[:kept], up[:, :kept] = factors.right[:kept], factors.left[:, :kept]
    if isinstance(layer, nn.Conv2d):
        return down.reshape(rank, *layer.weight.shape[1:]), up[:, :, None, None]
    return down, up


def _layers(model: Model, edit: Edit, names: Namer) -> dict[str, nn.Module]:
    """The layer of each changed weight.

    Raises:
        UsageError: if some have no place in a LoRA; it names them.
    """
    networks = model.components.values()
    owners = {id(p): m for net in networks for m in net.modules() for p in m.parameters(recurse=False)}
    layers, refused = dict[str, nn.Module](), list[str]()
    for name in edit.deltas:
        part, _, path = name.partition(".")
        layers[name] = owners[id(model.parameter(name))]
        if why := names.refuses(part) or _no_factors(layers[name], path):
            refused.append(f"{name} ({why})")
    if refused:
        more = f" and {len(refused) - 3} more" if len(refused) > 3 else ""
        raise UsageError(f"a LoRA cannot hold the change of {', '.join(refused[:3])}{more}; {INSTEAD}")
    return layers


def _no_factors(layer: nn.Module, path: str) -> str:
    """Why a weight is none that factors of a LoRA can change; nothing if it is one."""
    *_, owner, kind = path.split(".")
    if owner == "text_projection":
        return "diffusers gives its factors no rank"
    if kind != "weight":
        return f"a {kind}, and factors change weights alone"
    if isinstance(layer, nn.Conv2d) and layer.groups > 1:
        return "a convolution in groups"
    if not isinstance(layer, nn.Linear | nn.Conv2d):
        return f"of a {type(layer).__name__}"
    return ""
