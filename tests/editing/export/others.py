"""Edits to export, and what a model makes of a prompt: for comparing one that others opened with ours."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from denoscope import Edit, Model

PROMPT = "a red cat"


def edit_of(model: Model, parts: Sequence[str], only: str = "", strength: float = 0.3) -> Edit:
    """Random changes of rank 2 and 3, in turn, of linear layers and convolutions of some networks."""
    g, deltas = torch.Generator().manual_seed(0), dict[str, torch.Tensor]()
    for part in parts:
        for name, module in model.components[part].named_modules():
            if only not in name or not isinstance(module, nn.Linear | nn.Conv2d) or "text_proj" in name:
                continue
            weight = module.weight.detach().flatten(1)
            rank = min(2 + len(deltas) % 2, *weight.shape)
            sides = (
                torch.randn(len(weight), rank, generator=g),
                torch.randn(rank, weight.shape[1], generator=g),
            )
            change = sides[0].double() @ sides[1].double()
            scale = strength * weight.norm() / change.norm()
            deltas[f"{part}.{name}.weight"] = (scale * change).reshape(module.weight.shape)
    return Edit.of(model, deltas)


def seen(model: Model, guidance: float = 2.0) -> dict[str, torch.Tensor]:
    """What a prompt is encoded as, and a picture of two steps from the plain pipeline."""
    with torch.no_grad():
        [prompt] = model.encode([PROMPT])
        generators = [torch.Generator().manual_seed(3)]
        picture = model.run_pipeline([PROMPT], generators, 2, guidance)
    pooled = {} if prompt.pooled is None else {"pooled": prompt.pooled}
    return {"embeds": prompt.embeds, "picture": picture, **pooled}


def furthest(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> dict[str, float]:
    """The largest difference of each."""
    return {name: float((a[name] - b[name]).abs().max()) for name in a}
