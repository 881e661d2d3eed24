"""Skip connections of a UNet, dropped now and then, so that what they bypass has something to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import nn

from ....errors import UsageError
from ....places.hooks import before_calls


@contextmanager
def skips_dropped(denoiser: nn.Module, chance: float) -> Iterator[None]:
    """Let inner up blocks of a UNet go without their skip connections while the context lasts.

    Each block and each sample drops on its own, gradients included. The last block, whose skips carry the
    noise itself, keeps them all.

    Args:
        denoiser: a UNet of diffusers.
        chance: of a block to get none for a sample; 0 changes nothing.

    Raises:
        ValueError: for a chance that is none, or another denoiser.
    """
    if not 0 <= chance < 1:
        raise UsageError(f"the chance of skips to be dropped is {chance}; it is 0 or more, and less than 1")
    if chance and not isinstance(denoiser, UNet2DConditionModel):
        raise UsageError(f"skips are dropped in a UNet2DConditionModel; this is a {type(denoiser).__name__}")
    unet: Any = denoiser
    blocks = unet.up_blocks[:-1] if chance else ()
    with ExitStack() as stack:
        for block in blocks:
            stack.enter_context(before_calls(block, partial(_drop, chance)))
        yield


def _drop(chance: float, args: Any, kwargs: Any) -> None:  # noqa: ARG001
    skips = kwargs["res_hidden_states_tuple"]
    kept = torch.rand(len(skips[0]), 1, 1, 1, device=skips[0].device) >= chance
    kwargs["res_hidden_states_tuple"] = tuple(skip * kept.to(skip) for skip in skips)
