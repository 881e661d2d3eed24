"""What a denoiser learns to predict, at which noise levels, and the scheduler that goes with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn

from .denoisers import SCHEDULE, Text, predicted
from .training import Network, autocast

TIMES = 1000


class Objective(Protocol):
    """How noise is mixed in, what is predicted, and how errors are weighed."""

    def scheduler(self) -> Network:
        """The scheduler that a pipeline ships with."""

    def loss(self, denoiser: nn.Module, clean: Tensor, text: Text | None, dtype: torch.dtype) -> Tensor:
        """Weighted error at random times for clean inputs ``[sample, channel, height, width]``."""


@dataclass(frozen=True)
class Velocity:
    """v-prediction with min-SNR-5 weights (Salimans and Ho 2022; Hang et al. 2023).

    Args:
        options: of ``DDIMScheduler``.

    With ``rescale_betas_zero_snr`` (Lin et al. 2024) the last time is pure noise, where
    min(SNR, 5) / (SNR + 1) is 0 and nothing would be learnt; the weight is min(SNR + 1, 5) / (SNR + 1) then.
    """

    options: Mapping[str, Any] = field(default_factory=lambda: SCHEDULE)

    def scheduler(self) -> Network:
        """DDIM."""
        return DDIMScheduler(**self.options)

    def loss(self, denoiser: nn.Module, clean: Tensor, text: Text | None, dtype: torch.dtype) -> Tensor:
        """Error of the predicted velocity, weighted, at times spread over the whole schedule."""
        alphas = self._alphas.to(clean.device)
        times = (_spread(clean) * len(alphas)).long().clamp(max=len(alphas) - 1)
        alpha = alphas[times].view(-1, 1, 1, 1)
        noise = torch.randn_like(clean)
        noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
        wanted = alpha.sqrt() * noise - (1 - alpha).sqrt() * clean
        ratio = (alpha / (1 - alpha)).flatten()
        floor = 1 if alphas[-1] == 0 else 0
        weights = 2 * (ratio + floor).clamp(max=5) / (ratio + 1)
        return _error(denoiser, (noisy, times, text), wanted, weights, dtype)

    @cached_property
    def _alphas(self) -> Tensor:
        alphas: Tensor = self.scheduler().alphas_cumprod
        return alphas


@dataclass(frozen=True)
class Flow:
    """Rectified flow as in Stable Diffusion 3 (Esser et al. 2024): of (1 - s) x_0 + s noise, say noise - x_0.

    Levels s are logit-normal, so that the middle ones come most often; all count the same.

    Args:
        shift: of the sampler's levels; 1 for small latents.
    """

    shift: float = 1.0

    def scheduler(self) -> Network:
        """Euler's method on the flow."""
        return FlowMatchEulerDiscreteScheduler(num_train_timesteps=TIMES, shift=self.shift)

    def loss(self, denoiser: nn.Module, clean: Tensor, text: Text | None, dtype: torch.dtype) -> Tensor:
        """Error of the predicted flow at logit-normal levels."""
        levels = torch.special.ndtri(_spread(clean).clamp(1e-4, 1 - 1e-4)).sigmoid()
        level = levels.view(-1, 1, 1, 1)
        noise = torch.randn_like(clean)
        noisy, wanted = (1 - level) * clean + level * noise, noise - clean
        return _error(denoiser, (noisy, levels * TIMES, text), wanted, torch.ones_like(levels), dtype)


def _spread(clean: Tensor) -> Tensor:
    """One number from each of as many equal parts of 0..1 as there are samples: less noise than when free."""
    n = len(clean)
    return (torch.arange(n, device=clean.device) + torch.rand(n, device=clean.device)) / n


def _error(
    denoiser: nn.Module,
    given: tuple[Tensor, Tensor, Text | None],
    wanted: Tensor,
    weights: Tensor,
    dtype: torch.dtype,
) -> Tensor:
    with autocast(wanted.device, dtype):
        out = predicted(denoiser, *given)
    return (weights * (out.float() - wanted).square().mean((1, 2, 3))).mean()
