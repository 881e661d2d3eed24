"""What the axes of a site's tensor are, and which of its tokens are the picture's and which the text's.

Known from the kind of site, the class of its module and the adapter (size, patches, who comes first in joint
attention); never guessed from a shape.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from diffusers.hooks._helpers import TransformerBlockRegistry
from diffusers.models.attention import FeedForward
from diffusers.models.downsampling import Downsample2D
from diffusers.models.normalization import RMSNorm
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.sana_transformer import GLUMBConv
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.upsampling import Upsample2D
from torch import nn

from ..errors import NotFoundError
from ..site import Site
from .blocks import ATTENTION, Place


class Opened(Protocol):
    """What of an opened model tells the axes of its sites."""

    joint_order: tuple[str, str]

    @property
    def components(self) -> Mapping[str, nn.Module]:
        """The networks."""

    @property
    def picture_grid(self) -> tuple[int, int]:
        """Height and width of the latents, as a picture."""

    def place(self, site: Site | str) -> Place:
        """Where a site lies."""


_EVERY = slice(None)
_CONVOLUTIONAL = (nn.Conv2d, ResnetBlock2D, Transformer2DModel, Downsample2D, Upsample2D, GLUMBConv)
_TOKENWISE = (nn.Linear, nn.LayerNorm, RMSNorm, FeedForward, nn.GELU, *ATTENTION)
_VECTORS = ("resnet.temb", "adaln.temb", "pooled")


@dataclass(frozen=True)
class Tokens:
    """Whose the tokens along one axis are.

    Args:
        picture: where the picture's tokens lie, row by row of its grid; None if there are none.
        text: where the text's tokens lie; None if there are none.
    """

    picture: slice | None = None
    text: slice | None = None


@dataclass(frozen=True)
class Layout:
    """The axes of the tensor [sample, ...] at a site.

    Args:
        axes: their names after the sample axis: ("token", "channel"), ("channel", "height", "width"),
            ("head", "query", "key"), ("head", "token", "channel"), ("channel",).
        grid: height and width of the picture that pixels, or the picture's tokens, form; None for text.
        tokens: whose the tokens are, along the axis "token" or "query"; None without such an axis.
        keys: the same along the axis "key".
        heads: how many heads there are; None without such an axis.
    """

    axes: tuple[str, ...]
    grid: tuple[int, int] | None = None
    tokens: Tokens | None = None
    keys: Tokens | None = None
    heads: int | None = None

    @property
    def channel_axis(self) -> int | None:
        """Index of the channel axis in [sample, ...]; None for attention probabilities."""
        return self._index("channel")

    @property
    def token_axis(self) -> int | None:
        """Index of the axis of tokens (of queries, in probabilities) in [sample, ...]; None without one."""
        return self._index("token", "query")

    @property
    def picture(self) -> slice | None:
        """Where the picture's tokens lie along ``token_axis``; None if none do."""
        return self.tokens.picture if self.tokens else None

    @property
    def text(self) -> slice | None:
        """Where the text's tokens lie along the axis of tokens (of keys, in probabilities)."""
        along = self.keys or self.tokens
        return along.text if along else None

    def _index(self, *names: str) -> int | None:
        return next((i for i, axis in enumerate(self.axes, 1) if axis in names), None)


PICTURE, TEXT = Tokens(picture=_EVERY), Tokens(text=_EVERY)
_STREAMS = {"img": PICTURE, "txt": TEXT}


def site_layout(model: Opened, site: Site | str) -> Layout:
    """Return the axes of the tensor at a site.

    Raises:
        LookupError: if the model has no such site, or its axes are not known.
    """
    site = Site(str(site))
    place = model.place(site)
    if site.component.startswith("text_encoder"):
        grid, form = None, "vector" if site.kind in _VECTORS else "tokens"
        tokens = keys = TEXT
    else:
        grid, form = _grid(model, site), _form(site, place.module)
        tokens, keys = _owners(model, site, grid)
    if place.port == "sdpa":
        return _inside(site, place, grid, tokens, keys)
    if form == "vector":
        return Layout(("channel",))
    if form == "picture":
        return Layout(("channel", "height", "width"), grid)
    own = keys if re.search(r"\.[kv]_proj$", site.kind) else tokens
    return Layout(("token", "channel"), grid if own.picture else None, own)


def _inside(site: Site, place: Place, grid: tuple[int, int] | None, tokens: Tokens, keys: Tokens) -> Layout:
    """Inside attention: probabilities, or something of each head."""
    names = ("heads", "num_heads", "n_heads")
    heads = next((int(getattr(place.module, n)) for n in names if hasattr(place.module, n)), None)
    if heads is None:
        raise _unknown(site, place.module)
    if place.item == "probs":
        return Layout(("head", "query", "key"), grid if tokens.picture else None, tokens, keys, heads)
    own = keys if place.item in ("k", "v") else tokens
    return Layout(("head", "token", "channel"), grid if own.picture else None, own, None, heads)


def _form(site: Site, module: nn.Module) -> str:
    """Whether a module of the denoiser handles a vector, a picture or tokens, by its class."""
    if site.kind in _VECTORS or site.block == "temb":
        return "vector"
    if site.kind == "text":  # what a whole network is given
        return "tokens"
    module = _bare(module)
    pixels = site.component == "unet" and site.kind.startswith("resid.") and isinstance(module, ATTENTION)
    if pixels or isinstance(module, _CONVOLUTIONAL):
        return "picture"
    if isinstance(module, _TOKENWISE) or _is_block(module):
        return "tokens"
    raise _unknown(site, module)


def _bare(module: Any) -> Any:
    """What a LoRA is wrapped around."""
    return getattr(module, "base_layer", module)


def _is_block(module: nn.Module) -> bool:
    try:
        return TransformerBlockRegistry.get(type(module)) is not None
    except ValueError:
        return type(module).__name__ == "SanaTransformerBlock"


def _owners(model: Opened, site: Site, grid: tuple[int, int]) -> tuple[Tokens, Tokens]:
    """Whose tokens ask, and whose are read."""
    if site.kind == "text":
        return TEXT, TEXT
    if "cross_attn." in site.kind:
        return PICTURE, TEXT
    if site.stream in _STREAMS:
        return _STREAMS[site.stream], _STREAMS[site.stream]
    if not (site.kind.startswith("joint_attn.") or site.block.startswith("single.")):
        return PICTURE, PICTURE
    n = grid[0] * grid[1]
    if model.joint_order == ("img", "txt"):
        both = Tokens(slice(0, n), slice(n, None))
    else:
        both = Tokens(slice(-n, None), slice(0, -n))
    return both, both


def _grid(model: Opened, site: Site) -> tuple[int, int]:
    """Height and width of the picture where a site of the denoiser lies."""
    if site.component == "unet":
        height, width = model.picture_grid
        return _unet_side(model, site, height), _unet_side(model, site, width)
    grid: tuple[int, int] | None = getattr(model, "token_grid", None)
    if site.component != "transformer" or grid is None:
        raise _unknown(site, model.place(site).module)
    return grid


def _unet_side(model: Opened, site: Site, side: int) -> int:
    """One side of the picture at a block: halved on the way down, and on the way up as it was there."""
    blocks = getattr(model.components["unet"], "down_blocks", None)
    if blocks is None:  # a network of one's own under that name
        raise _unknown(site, model.place(site).module)
    sides = [side]
    for block in blocks.children():
        samplers = list(getattr(block, "downsamplers", None) or [])
        sides.append(_halved(site, sides[-1], samplers[0]) if samplers else sides[-1])
    last = len(sides) - 2
    group, *rest = site.block.split(".")
    if group in ("in", "out", "temb"):
        return side
    if group == "mid":
        return sides[-1]
    moved = rest[-1] in ("downsample", "upsample")
    level = int(rest[0]) if group == "down" else last - int(rest[0])
    return sides[level + moved] if group == "down" else sides[level - moved]


def _halved(site: Site, side: int, sampler: nn.Module) -> int:
    conv = _bare(getattr(sampler, "conv", None))
    if not isinstance(sampler, Downsample2D) or not isinstance(conv, nn.Conv2d | nn.AvgPool2d):
        raise _unknown(site, sampler)
    kernel, stride = (v if isinstance(v, int) else v[0] for v in (conv.kernel_size, conv.stride))
    added = 0
    if isinstance(conv, nn.Conv2d):  # without padding of its own it is padded on one side
        added = 2 * int(conv.padding[0]) or 1
    return (side + added - kernel) // stride + 1


def _unknown(site: Site, module: nn.Module) -> LookupError:
    return NotFoundError(
        f"the axes of {site} are not known: nothing tells how {type(module).__name__} orders them. "
        "An adapter says it by its own layout(site); a Direction takes axis="
    )
