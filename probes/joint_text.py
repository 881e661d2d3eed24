"""What joint attention's own text layers are given: the text stream of a block, which has met the picture.

``add_k_proj`` and ``add_v_proj`` (Stable Diffusion 3, Flux) read the text as the blocks before them have
changed it, and as the time scales it. So a text has no one key there: keys are samples, at some moments of a
run of the empty text, the same moments and latents for all texts. Edits of these layers hold near those; the
embedder before the blocks has exact keys (``text_layers``), and is where edits go by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..models.arguments import batches
from ..models.base import Model
from ..models.places.hooks import before_calls
from ..models.places.refuse import uncompiled
from ..models.run.levels import Step
from .text_layers import TextLayer, segments_of, smallest
from .text_states import TokenStates, encoded

JOINT = "joint "
"""How the spaces of these layers begin; the rest is the block's attention."""
MOMENTS = 4
"""So many steps of the run give keys, evenly from the noisiest on."""
_STEPS = 12
_BATCH = 8


def joint_layers(model: Model) -> list[TextLayer]:
    """Return the text's own keys and values in joint attention, in the order of their names; perhaps none."""
    part = model.input_site.component
    return [
        TextLayer(f"{part}.{name}.weight", module, JOINT + name.rsplit(".", 1)[0], module.in_features)
        for name, module in model.components[part].named_modules()
        if isinstance(module, nn.Linear) and name.endswith((".add_k_proj", ".add_v_proj"))
    ]


@torch.no_grad()
def joint_inputs(model: Model, layer: TextLayer, texts: Sequence[str]) -> dict[str, list[TokenStates]]:
    """Return what a layer is given for each text at some moments, on the CPU.

    Of two texts, the states at one place in their lists are of one moment, latents and tokenizer.

    Raises:
        ValueError: for texts that are too long.
    """
    small, prompts = smallest(model), encoded(model, texts)
    found: dict[str, list[TokenStates]] = {text: [] for text in texts}
    for latents, step in _moments(small):
        for some in batches(len(texts), _BATCH):
            own = [prompts[text] for text in texts[some]]
            seen: list[Tensor] = []
            with uncompiled(model), before_calls(layer.module, partial(_look, seen)):
                small.denoise(latents.expand(len(own), *latents.shape[1:]), step, own)
            for text, prompt, states in zip(texts[some], own, seen[0], strict=True):
                found[text] += segments_of(prompt, states.cpu())
    return found


def _look(seen: list[Tensor], args: Any, kwargs: Any) -> None:
    seen.append((args[0] if args else kwargs["input"]).detach())


def _moments(model: Model) -> list[tuple[Tensor, Step]]:
    """Latents and steps of one run of the empty text."""
    run = list(model.sample([""], seeds=[0], steps=_STEPS, guidance=model.default_guidance))
    chosen = np.linspace(0, len(run) - 1, MOMENTS + 1).round().astype(int)[:-1]
    return [(run[i].model_input, run[i].step) for i in chosen]
