"""Which rows of a call are whose, asked of the pipeline: the table of diffusers pipelines that are known.

A pipeline is known if the class whose ``__call__`` runs is in the table. What is asked is whether its running
call is guided, and which extra passes it makes; the order of branches in a batch is that of its family.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from ...models.errors import UsageError
from ...models.run.context import Branch
from ...models.suggest import near

Arguments: TypeAlias = Mapping[str, Any]
"""What the running call of a pipeline was given, defaults included."""


@dataclass(frozen=True)
class PipelineRows:
    """How a pipeline calls its networks.

    Args:
        guided: whether a running call has an unconditional branch; gets the pipeline and the arguments.
        text_order: whose text is read first. It decides only where both texts are the same tokens.
        extra: passes of the conditional rows alone: the branch, by the keyword that the denoiser gets then.
    """

    guided: Callable[[Any, Arguments], bool]
    text_order: tuple[Branch, ...] = ("cond", "uncond")
    extra: Mapping[str, Branch] = field(default_factory=dict)


def _says(pipe: Any, _: Arguments) -> bool:
    """The pipeline has a property, which callbacks may change while it runs."""
    return bool(pipe.do_classifier_free_guidance)


def _above_one(_: Any, arguments: Arguments) -> bool:
    return bool(arguments["guidance_scale"] > 1)


def _not_one(_: Any, arguments: Arguments) -> bool:
    return bool(arguments["guidance_scale"] != 1)


def _true_cfg(_: Any, arguments: Arguments) -> bool:
    encoded = ("negative_prompt_embeds", "negative_pooled_prompt_embeds")
    negative = arguments["negative_prompt"] is not None or all(arguments[n] is not None for n in encoded)
    return bool(arguments["true_cfg_scale"] > 1 and negative)


def _never(_: Any, __: Arguments) -> bool:
    return False


_SD, _FLUX, _ARGUMENT = PipelineRows(_says), PipelineRows(_true_cfg), PipelineRows(_above_one)

PIPELINES: dict[str, PipelineRows] = {
    "StableDiffusionPipeline": _SD,
    "StableDiffusionImg2ImgPipeline": _SD,
    "StableDiffusionInpaintPipeline": _SD,
    "StableDiffusionControlNetPipeline": _SD,
    "StableDiffusionXLPipeline": _SD,
    "StableDiffusionXLImg2ImgPipeline": _SD,
    "StableDiffusionXLInpaintPipeline": _SD,
    "StableDiffusion3Pipeline": PipelineRows(_says, extra={"skip_layers": "skip_layers"}),
    "StableDiffusion3Img2ImgPipeline": _SD,
    "FluxPipeline": _FLUX,
    "FluxImg2ImgPipeline": _FLUX,
    "PixArtAlphaPipeline": _ARGUMENT,
    "PixArtSigmaPipeline": _ARGUMENT,
    "SanaPipeline": _SD,
    "DiTPipeline": _ARGUMENT,
    "LDMTextToImagePipeline": PipelineRows(_not_one, text_order=("uncond", "cond")),
    "DDPMPipeline": PipelineRows(_never),
    "DDIMPipeline": PipelineRows(_never),
}


def rows_of(pipe: Any) -> PipelineRows:
    """Return the table's entry for the class whose ``__call__`` a pipeline runs.

    Raises:
        ValueError: if it has none; the message says how to give the rows.
    """
    kind = next((c for c in type(pipe).__mro__ if "__call__" in vars(c)), type(pipe))
    if kind.__name__ in PIPELINES and kind.__module__.startswith("diffusers."):
        return PIPELINES[kind.__name__]
    raise UsageError(
        f"whose the rows are in a call of {kind.__name__} is not known; {near(kind.__name__, PIPELINES)}. "
        'Say it, for example attached(pipe, rows={"uncond": slice(0, 1), "cond": slice(1, 2)}); '
        "for calls with other rows: with run.assigning({...})"
    )
