"""Train the autoencoder: 64x64 pictures to 16x16x4 latents of mean 0 and deviation 1, and back."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from ..data.pictures import Pictures
from ..data.sampling import Mix, items
from .training import Network, TrainingRun, autocast, device_and_dtype, follow


def new_vae(channels: tuple[int, ...] = (32, 64, 128)) -> Network:
    """A small autoencoder; every channel step but the last halves the side."""
    blocks = len(channels)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        block_out_channels=channels,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=64,
        scaling_factor=1.0,
        mid_block_add_attention=False,
    )


def loss_of(vae: Network, pictures: Tensor, *, decoder_only: bool = False) -> tuple[Tensor, Tensor]:
    """Reconstruction (L1, L2, half of the L1 of edges) plus a little KL; and the squared error alone."""
    with torch.set_grad_enabled(not decoder_only):
        posterior = vae.encode(pictures).latent_dist
    latents = posterior.mean + 0.05 * torch.randn_like(posterior.mean) if decoder_only else posterior.sample()
    out = vae.decode(latents).sample.float()
    square = (out - pictures).square().mean()
    edges = sum((d - e).abs().mean() for d, e in zip(_edges(out), _edges(pictures), strict=True))
    kl = posterior.kl().mean() / posterior.mean[0].numel()
    return (out - pictures).abs().mean() + square + 0.5 * edges + 3e-4 * kl, square


def train(
    pictures: Pictures, folder: Path, minutes: float, *, start: Network | None = None, batch: int = 8
) -> Network:
    """Train until the time budget is used; the average ends in ``folder/vae``.

    Args:
        pictures: to learn from, with composed scenes mixed in.
        folder: for checkpoints and the log.
        minutes: time budget.
        start: an autoencoder to refine. Then only its decoder learns, so that latents, and the denoisers
            trained on them, stay valid.
        batch: pictures in a step.
    """
    device, dtype = device_and_dtype()
    decoder_only = start is not None
    model = (start or new_vae()).to(device)
    average = copy.deepcopy(model)
    run = TrainingRun(folder, minutes)
    run.restore(model, average)
    learned = [*model.decoder.parameters(), *model.post_quant_conv.parameters()]
    learned = learned if decoder_only else list(model.parameters())
    optimizer = torch.optim.AdamW(learned, 1e-3, betas=(0.9, 0.98), weight_decay=1e-3)
    stream = _batches(pictures, batch, run.step)
    while not run.done:
        for group in optimizer.param_groups:
            group["lr"] = run.rate(6e-4 if decoder_only else 1.5e-3)
        with autocast(device, dtype):
            loss, square = loss_of(model, next(stream).to(device), decoder_only=decoder_only)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        run.step += 1
        follow(average, model, run.step, 0.995)
        if run.step % 100 == 0:
            run.note({"loss": loss, "psnr": -10 * torch.log10(square / 4)})
        if run.due():
            run.save(model, average)
    run.save(model, average)
    if not decoder_only:
        normalise(average, pictures)
    average.save_pretrained(folder / "vae")
    return average


@torch.no_grad()
def psnr(vae: Network, pictures: Tensor) -> float:
    """Fidelity in dB of coding and decoding pictures in 0..1 without noise (on the mean)."""
    errors = []
    for part in pictures.split(64):
        inputs = part.to(vae.device) * 2 - 1
        out = vae.decode(vae.encode(inputs).latent_dist.mean).sample.clamp(-1, 1)
        errors.append((out - inputs).square().mean((1, 2, 3)))
    return float(-10 * torch.log10(torch.cat(errors).mean() / 4))


@torch.no_grad()
def normalise(vae: Network, pictures: Pictures) -> None:
    """Fold mean and deviation of each latent channel into the (post-)quant convolutions; exact."""
    sample = pictures.on_white(torch.arange(0, len(pictures), 3))
    latents = torch.cat([vae.encode(p.to(vae.device) * 2 - 1).latent_dist.mean for p in sample.split(64)])
    mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    before, after = vae.quant_conv, vae.post_quant_conv
    n = len(mean)
    before.weight[:n] /= deviation.view(-1, 1, 1, 1)
    before.bias[:n] = (before.bias[:n] - mean) / deviation
    before.bias[n:] -= 2 * deviation.log()
    after.bias += after.weight[:, :, 0, 0] @ mean
    after.weight *= deviation.view(1, -1, 1, 1)


def _batches(pictures: Pictures, size: int, seed: int) -> Iterator[Tensor]:
    stream = items(pictures, seed, Mix(composed=0.3, empty=0.0))
    while True:
        chosen = list(itertools.islice(stream, size))
        plain = pictures.on_white(torch.tensor([item.index for item in chosen]))
        shown = [p if item.picture is None else item.picture for item, p in zip(chosen, plain, strict=True)]
        yield torch.stack(shown) * 2 - 1


def _edges(pictures: Tensor) -> tuple[Tensor, Tensor]:
    return pictures[..., 1:] - pictures[..., :-1], pictures[..., 1:, :] - pictures[..., :-1, :]
