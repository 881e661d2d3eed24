"""How values show themselves: in a line, or in a notebook as a small table, perhaps with pictures."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from html import escape
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

if TYPE_CHECKING:
    import pandas as pd

    from .adapter import Adapter

MOST_ROWS, MOST_PICTURES = 40, 4
_SIDE = 64  # pixels of the longer side: four pictures stay below 100 kB, whatever is on them
_LONGEST = 200  # characters of a text
# no colours of our own: text and lines take those of the page, dark or light
_CELL = "text-align:left;padding:1px 8px;border-bottom:1px solid rgba(128,128,128,.3)"


class Brief:
    """A dataclass (``repr=False``) that shows tensors by their shapes, and not number by number."""

    def __repr__(self) -> str:
        told = (f"{f.name}={_brief(getattr(self, f.name))}" for f in fields(self) if f.repr)  # type: ignore[arg-type]
        return f"{type(self).__name__}({', '.join(told)})"


def _brief(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{k!r}: {_brief(v)}' for k, v in value.items())}}}"
    if isinstance(value, tuple | list) and any(isinstance(v, Tensor) for v in value):
        return f"({', '.join(map(_brief, value))})"
    return repr(value)


def panel(title: str, *parts: str) -> str:
    """Return a title with tables and pictures, which ``table`` and ``pictures`` made, below it."""
    return f'<div style="font-size:90%"><strong>{_text(title)}</strong>{"".join(parts)}</div>'


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table of at most ``MOST_ROWS`` rows, and how many more there are."""
    every = list(rows)
    head = "".join(f'<th style="{_CELL}">{_text(c)}</th>' for c in columns)
    body = "".join(
        "<tr>" + "".join(f'<td style="{_CELL}">{_text(value)}</td>' for value in row) + "</tr>"
        for row in every[:MOST_ROWS]
    )
    more = f"<div>... {len(every) - MOST_ROWS} more</div>" if len(every) > MOST_ROWS else ""
    return f'<table style="border-collapse:collapse"><tr>{head}</tr>{body}</table>{more}'


def frame_table(frame: pd.DataFrame) -> str:
    """Return ``table`` of a data frame, without its index."""
    return table([str(c) for c in frame.columns], frame.itertuples(index=False))


def pictures(images: Tensor, names: Sequence[str], most: int = MOST_PICTURES) -> str:
    """Return small pictures side by side.

    Args:
        images: [picture, channel, height, width] in 0..1; of one channel, or three.
        names: of each, shown where the pointer rests.
        most: so many are shown.
    """
    found = zip(images[:most], names, strict=False)
    shown = (
        f'<img src="{_png(x)}" alt="{_text(name)}" title="{_text(name)}" style="margin:2px">'
        for x, name in found
    )
    return f"<div>{''.join(shown)}</div>"


def model_html(model: Adapter) -> str:
    """Return a table of a model's components, and what it paints."""
    rows: list[tuple[object, ...]] = [
        (name, type(part).__name__, f"{sum(p.numel() for p in part.parameters()):,}")
        for name, part in model.components.items()
    ]
    rows.append(("scheduler", type(model.scheduler).__name__, ""))
    size = " x ".join(map(str, model.size))
    paints = f"{size} pixels, " if size else ""
    latents = " x ".join(map(str, model.latent_shape))
    title = f"{type(model).__name__} {model.name!r}: {paints}latents {latents}"
    return panel(title, table(("component", "class", "parameters"), rows))


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    text = str(value)
    return escape(text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}...")


def _png(image: Tensor) -> str:
    """A picture [channel, height, width] as a data address."""
    pixels = (image.detach().float().nan_to_num(0).clamp(0, 1) * 255).round().to("cpu", torch.uint8)
    array = pixels.permute(1, 2, 0).numpy()
    picture = Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
    shrink = max(1, math.ceil(max(picture.size) / _SIDE))
    buffer = io.BytesIO()
    picture.reduce(shrink).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
