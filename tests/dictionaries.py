"""A dictionary that is known without a training, and a judge without a network."""

from __future__ import annotations

import torch
from torch.nn.functional import normalize

from denoscope.probes import Channels, Dictionary


class Eyes:
    """Looks at single pixels."""

    def similarity(self, images, others):
        return normalize(images.flatten(1), dim=-1) @ normalize(others.flatten(1), dim=-1).mT

    def features(self, images):
        return images[:, :, ::2, ::2].flatten(1)


def doubled(model, site):
    """Each channel is two features: what is above 0, and what is below; 16 channels."""
    eye, none = torch.eye(16), torch.zeros(1, 16)
    both = torch.cat([eye, -eye])
    return Dictionary(Channels.of(model, site), both, both, torch.zeros(1, 32), none, none, k=16)
