"""Which weights of two models differ, and by how much."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pandas as pd
import torch
from torch import Tensor

from ..models.base import Model


def weights_of(model: Model) -> dict[str, Tensor]:
    """Return a copy of each floating-point weight as it is now, in main memory, by its full name."""
    return {name: t.detach().to("cpu", copy=True) for name, t in _weights(model)}


def differing(before: Mapping[str, Tensor], model: Model) -> pd.DataFrame:
    """Return the weights of a model that are not as before, the most changed first.

    Columns: weight, ``relative`` (Frobenius norm of the change as a share of the weight's), ``size``. A
    weight that only one of both has, as adapters do, has the relative change NaN.
    """
    rows, now = [], dict(_weights(model))
    for name in dict.fromkeys([*before, *now]):
        first, second = before.get(name), now.get(name)
        if first is None or second is None or first.shape != second.shape:
            known = first if second is None else second
            rows.append((name, float("nan"), 0 if known is None else known.numel()))
            continue
        a, b = first.double(), second.detach().cpu().double()
        moved = float(torch.linalg.vector_norm(b - a))
        if moved > 0:
            rows.append((name, moved / max(float(torch.linalg.vector_norm(a)), 1e-30), a.numel()))
    frame = pd.DataFrame(rows, columns=["weight", "relative", "size"])
    order = frame["relative"].sort_values(ascending=False, na_position="first", kind="stable").index
    return frame.loc[order].reset_index(drop=True)


def _weights(model: Model) -> Iterator[tuple[str, Tensor]]:
    for part, component in model.components.items():
        for name, t in component.named_parameters():
            if t.is_floating_point():
                yield f"{part}.{name}", t
