"""Dictionaries of random numbers, and a store whose rows are sums of known features."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.functional import embedding_bag, normalize

from denoscope.models.run.levels import Step
from denoscope.models.site import Site
from denoscope.probes import Channels, Dictionary

TOKENS = "unet/mid.attn.0.0/cross_attn.out"
BEFORE, AFTER = "unet/mid.attn.0/resid.pre", "unet/mid.attn.0/resid.post"


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def random_dictionary(channels, d=16, n=24, k=3, seed=0, levels=(), **more):
    """Every number of it counts."""
    g, of = rng(seed), max(1, len(levels))
    return Dictionary(
        channels,
        torch.randn(n, d, generator=g),
        normalize(torch.randn(n, d, generator=g), dim=-1),
        torch.randn(of, n, generator=g),
        torch.randn(of, d, generator=g),
        torch.randn(of, d, generator=g),
        k=k,
        levels=levels,
        **more,
    )


@dataclass
class PlantedStore:
    """What training asks of a store: sums of k features, which like to come in groups."""

    d: int = 64
    n: int = 256
    k: int = 8
    size: int = 20_000
    held: int = 500
    kernel: str = "position"
    steps: tuple = (Step(0, 900.0, 9.0), Step(1, 100.0, 0.3))
    about: dict[str, Any] = field(default_factory=lambda: {"identity": {"weights": None}})

    def __post_init__(self):
        g = rng(1234)  # not the seed of any training, whose start would be the truth
        self.truth = normalize(torch.randn(self.n, self.d, generator=g), dim=-1)
        together = torch.randn(self.size, self.n // 4, generator=g).repeat_interleave(4, 1)
        liking = 0.3**0.5 * together + 0.7**0.5 * torch.randn(self.size, self.n, generator=g)
        strength = torch.rand(self.size, self.k, generator=g) + 0.5
        on = liking.topk(self.k, -1).indices
        self.values = 3 * embedding_bag(on, self.truth, per_sample_weights=strength, mode="sum") + 1
        self.at = torch.randint(2, (self.size,), generator=g)

    def n_rows(self, site, held=False):
        return self.held if held else self.size - self.held

    def rows(self, site, start, stop, held=False):
        before = self.n_rows(site) if held else 0
        part = slice(before + start, before + stop)
        return self.values[part], self.at[part]


PLANTED = Channels(Site(TOKENS), ("token", "channel"))
