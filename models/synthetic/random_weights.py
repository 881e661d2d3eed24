"""The same model with a denoiser that has learned nothing: what maps of it show is not what was learned."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch

from ..arguments import checked
from ..base import Model
from ..places.live import Live
from ..run.noise import generators

M = TypeVar("M", bound=Model)


@checked
def randomised(model: M, seed: int = 0) -> M:
    """Return a model whose denoiser has each of its weights shuffled; the given one stays as it is.

    Shuffling keeps the mean and the spread of each tensor, so that activations keep their scale. Text
    encoders, autoencoder and scheduler are shared with the given model. The randomisation test of Adebayo et
    al. 2018 (arXiv:1810.03292), all layers at once and each with fresh values.

    Args:
        model: an opened model.
        seed: of the shuffle.

    >>> from denoscope.models.synthetic.tiny import tiny_sd
    >>> model = load(tiny_sd())
    >>> other = randomised(model)
    >>> other.pipe.vae is model.pipe.vae, other.pipe.unet is model.pipe.unet
    (True, False)
    """
    (generator,) = generators([seed])
    network = copy.deepcopy(model.denoiser)
    with torch.no_grad():
        for weight in network.parameters():
            order = torch.randperm(weight.numel(), generator=generator).to(weight.device)
            weight.copy_(weight.flatten()[order].view_as(weight))
    other = copy.copy(model)
    other.pipe, other.live = copy.copy(model.pipe), Live()
    setattr(other.pipe, model.input_site.component, network)
    other.name = f"{model.name}, weights shuffled by {seed}"
    other.places()
    return other
