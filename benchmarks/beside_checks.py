"""What the code of others goes by, asked of the versions that are installed; for ``beside.py``.

Each check looks for what a published script looks for: in networks of published sizes without weights, or in
the embedded model.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import torch

import denoscope
from denoscope.models.synthetic.published import PUBLISHED

SIZES = ("sd-1.5", "sd-2.1", "sdxl")
OTHERS = ("sd3-medium", "flux-dev", "pixart-sigma", "sana-1.6b")


def checked() -> list[Sequence[str]]:
    """Each thing that is gone by, and what there is."""
    with torch.device("meta"):
        sized = {name: PUBLISHED[name]().unet for name in SIZES}
        without = [name for name in OTHERS if not hasattr(PUBLISHED[name](), "unet")]
    reading = {name: attentions(unet) for name, unet in sized.items()}
    pipe = denoscope.load("emoji").pipe
    libraries = f"diffusers {version('diffusers')}, transformers {version('transformers')}"
    return [
        (
            f"TIME: modules of the class `CrossAttention` ({libraries})",
            listed(
                {
                    n: sum(type(m).__name__ == "CrossAttention" for m in unet.modules())
                    for n, unet in sized.items()
                }
            ),
        ),
        (
            "TIME: cross-attentions that read 768 channels",
            listed(
                {
                    n: f"{sum(a.to_v.in_features == 768 for a in each)} of {len(each)}"
                    for n, each in reading.items()
                }
            ),
        ),
        ("LocoGen: 16 cross-attentions", listed({n: len(each) for n, each in reading.items()})),
        ("UCE, `uce_sd_erase.py`: the pipeline's `unet`", f"there is none in {', '.join(without)}"),
        ("ReFACT: the pipeline reads what is put at `text_encoder.text_model`", replaced(pipe)),
        (
            "attribute-control: tokens are spelled as the prompt is",
            f"tokens of `A Cook`: {spelled(pipe, 'A Cook')}",
        ),
    ]


def attentions(unet: Any) -> list[Any]:
    """The cross-attentions of a UNet."""
    return [module for name, module in unet.named_modules() if name.endswith("attn2")]


def listed(found: dict[str, Any]) -> str:
    """Each with its name."""
    return ", ".join(f"{name}: {value}" for name, value in found.items())


@torch.no_grad()
def replaced(pipe: Any) -> str:
    """Put a text tower of zeros where ReFACT puts the edited one, and say whether that is read."""
    encoder = pipe.text_encoder
    there = hasattr(encoder, "text_model")
    plain = embeds(pipe)
    before, other = getattr(encoder, "text_model", None), copy.deepcopy(encoder)
    for weight in other.parameters():
        weight.zero_()
    encoder.text_model = getattr(other, "text_model", other)
    moved = not torch.equal(embeds(pipe), plain)
    if there:
        encoder.text_model = before
    else:
        del encoder.text_model
    if moved:
        return "it does"
    return f"it does not: {type(encoder).__name__} has no such part, and what is put there is left out"


def embeds(pipe: Any) -> torch.Tensor:
    """What the denoiser reads of a text."""
    told: torch.Tensor = pipe.encode_prompt("a dog", "cpu", 1, do_classifier_free_guidance=False)[0]
    return told


def spelled(pipe: Any, text: str) -> str:
    """The tokens of a text."""
    return ", ".join(f"`{token}`" for token in pipe.tokenizer.tokenize(text))
