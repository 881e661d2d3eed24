"""Train the denoiser: v-prediction, min-SNR-5 weights, a running average of the weights, frozen text encoder.

On a GPU one process with large batches; on a CPU several one-thread processes that share the weights without
locks (Hogwild), which loses little and never waits for a busy core.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from ...quiet import no_bars
from .data import Pictures
from .sampling import Item, Mix, items
from .training import Network, Run, device_and_dtype, follow

SCHEDULE: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


@dataclass(frozen=True)
class Settings:
    """Choices for one run."""

    minutes: float = 60
    batch: int = 16
    rate: float = 4e-4
    workers: int = 2
    decay: float = 0.999
    mix: Mix = Mix()


@dataclass(frozen=True)
class Parts:
    """The frozen parts that training needs."""

    vae: Network
    text_encoder: Network
    tokenizer: CLIPTokenizer

    @classmethod
    def read(cls, folder: Path) -> Parts:
        """Read them from a model's folder."""
        return cls.find({name: folder / name for name in ("vae", "text_encoder", "tokenizer")})

    @classmethod
    def find(cls, places: Mapping[str, Path]) -> Parts:
        """Read them from a folder for each."""
        with no_bars():
            vae = AutoencoderKL.from_pretrained(places["vae"], dtype=torch.float32, low_cpu_mem_usage=False)
            text_encoder = CLIPTextModel.from_pretrained(places["text_encoder"], dtype=torch.float32)
        for part in (vae, text_encoder):
            part.eval().requires_grad_(False)
        return cls(vae, text_encoder, CLIPTokenizer.from_pretrained(places["tokenizer"]))

    @torch.no_grad()
    def latents(self, pictures: Tensor) -> Tensor:
        """Latents of pictures in 0..1."""
        device = self.vae.device
        parts = [self.vae.encode(p.to(device) * 2 - 1).latent_dist.mean for p in pictures.split(64)]
        latents: Tensor = torch.cat(parts) * self.vae.config.scaling_factor
        return latents.contiguous()

    @torch.no_grad()
    def states(self, captions: list[str]) -> Tensor:
        """Last hidden states of captions."""
        tokens = self.tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt")
        states: Tensor = self.text_encoder(tokens.input_ids.to(self.text_encoder.device)).last_hidden_state
        return states


def new_unet(channels: tuple[int, ...] = (64, 96, 192), states: int = 128) -> Network:
    """A small UNet with cross-attention in every block."""
    blocks = len(channels)
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        block_out_channels=channels,
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * blocks,
        up_block_types=("CrossAttnUpBlock2D",) * blocks,
        cross_attention_dim=states,
        attention_head_dim=tuple(c // 32 for c in channels),
        norm_num_groups=16,
        use_linear_projection=True,
    )


def loss_of(unet: nn.Module, latents: Tensor, states: Tensor, alphas: Tensor, dtype: torch.dtype) -> Tensor:
    """Error of the predicted velocity at random times, weighted by min(SNR, 5) / (SNR + 1).

    One time from each of as many equal parts as there are samples: less noise than times drawn freely.
    """
    n = len(latents)
    spread = (torch.arange(n, device=latents.device) + torch.rand(n, device=latents.device)) / n
    times = (spread * len(alphas)).long().clamp(max=len(alphas) - 1)
    alpha = alphas[times].view(-1, 1, 1, 1)
    noise = torch.randn_like(latents)
    noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
    velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * latents
    with torch.autocast(latents.device.type, dtype):
        predicted = unet(noisy, times, encoder_hidden_states=states).sample
    ratio = (alpha / (1 - alpha)).flatten()
    error = (predicted.float() - velocity).square().mean((1, 2, 3))
    loss: Tensor = (2 * ratio.clamp(max=5) / (ratio + 1) * error).mean()
    return loss


def train(pictures: Pictures, parts: Parts, start: Network, folder: Path, settings: Settings) -> None:
    """Train until the time budget is used; the average ends in ``folder/unet``.

    Args:
        pictures: the training pictures.
        parts: frozen autoencoder, text encoder and tokenizer.
        start: where to start from; its weights are changed.
        folder: for checkpoints and the log; an interrupted run goes on from there.
        settings: budget, batch, learning rate, number of processes.
    """
    device, _ = device_and_dtype()
    run, average = Run(folder, settings.minutes), copy.deepcopy(start)
    run.restore(start, average)
    for module in (start, average, parts.vae, parts.text_encoder):
        module.to(device)
    latents = _cached_latents(pictures, parts, folder / "latents.safetensors")
    if device.type == "cuda" or settings.workers < 2:
        _work(0, pictures, latents, parts, (start, average), (folder, settings))
    else:
        _spawn(pictures, latents, parts, (start, average), (folder, settings))
    average.save_pretrained(folder / "unet")


def _cached_latents(pictures: Pictures, parts: Parts, path: Path) -> Tensor:
    """Latents of all pictures; kept ones serve only while pictures and autoencoder are the same."""
    if path.is_file():
        kept = load_file(path)["latents"].to(parts.vae.device)
        ends = torch.tensor([0, len(pictures) - 1])
        now = parts.latents(pictures.on_white(ends))
        if len(kept) == len(pictures) and torch.allclose(kept[ends], now, atol=1e-2):
            return kept
    found = parts.latents(pictures.on_white())
    save_file({"latents": found.cpu()}, path)
    return found


def _spawn(
    pictures: Pictures,
    latents: Tensor,
    parts: Parts,
    models: tuple[nn.Module, nn.Module],
    run: tuple[Path, Settings],
) -> None:
    for module in models:
        module.share_memory()
    shared = pictures, latents.share_memory_(), parts, models, run
    start_processes: Any = torch.multiprocessing.spawn  # type: ignore[attr-defined]  # not in its __all__
    start_processes(_work, shared, nprocs=run[1].workers)


def _work(  # noqa: PLR0917 - torch.multiprocessing.spawn calls by position
    rank: int,
    pictures: Pictures,
    latents: Tensor,
    parts: Parts,
    models: tuple[nn.Module, nn.Module],
    where: tuple[Path, Settings],
) -> None:
    """One training process; the first one also averages, logs and saves."""
    folder, settings = where
    device, dtype = device_and_dtype()
    if device.type == "cpu":
        torch.set_num_threads(1)
    unet, average = models
    unet.train().requires_grad_(True)
    run = Run(folder, settings.minutes)
    torch.manual_seed(1000 * rank + run.step)
    scheduler: Network = DDIMScheduler(**SCHEDULE)
    alphas = scheduler.alphas_cumprod.to(device)
    optimizer = torch.optim.AdamW(
        unet.parameters(), settings.rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True
    )
    stream = items(pictures, 1000 * rank + run.step, settings.mix)
    losses: list[float] = []
    while not run.done:
        for group in optimizer.param_groups:
            group["lr"] = run.rate(settings.rate)
        loss = loss_of(unet, *_batch(stream, settings.batch, latents, parts), alphas, dtype)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        run.step += 1
        if rank == 0:
            follow(average, unet, run.step, settings.decay)
            if run.step % 50 == 0:
                run.note(
                    {"loss": sum(losses[-50:]) / 50, "samples": run.step * settings.batch * settings.workers}
                )
            if run.due():
                run.save(unet, average)
    if rank == 0:
        run.save(unet, average)


def _batch(stream: Iterator[Item], size: int, latents: Tensor, parts: Parts) -> tuple[Tensor, Tensor]:
    chosen = list(itertools.islice(stream, size))
    batch = latents[[item.index for item in chosen]].clone()
    composed = [i for i, item in enumerate(chosen) if item.picture is not None]
    if composed:
        batch[composed] = parts.latents(
            torch.stack([p for item in chosen if (p := item.picture) is not None])
        )
    return batch, parts.states([item.caption for item in chosen])
