"""Train text encoder and image tower against each other (contrastive, symmetric), on real pictures."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from ....judges.embedded import ImageTower
from ..data.pictures import Pictures
from ..data.sampling import Mix, items
from .training import TrainingRun, autocast, device_and_dtype

SHAPE = {"width": 64, "dim": 128}


class Clip(nn.Module):
    """A text encoder with projection, an image tower and a learned temperature."""

    def __init__(self, text: CLIPTextModelWithProjection, images: ImageTower) -> None:
        super().__init__()
        self.text, self.images = text, images
        self.scale = nn.Parameter(torch.tensor(2.64))

    def forward(self, pictures: Tensor, tokens: Tensor) -> Tensor:
        """Cosines times the temperature, ``[picture, text]``."""
        seen = F.normalize(self.images(pictures).float(), dim=-1)
        read = F.normalize(self.text(tokens).text_embeds.float(), dim=-1)
        return self.scale.exp().clamp(max=60) * seen @ read.T


def new_clip(tokenizer: CLIPTokenizer, layers: int = 6) -> Clip:
    """Random weights for a tokenizer."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=layers,
        num_attention_heads=4,
        projection_dim=SHAPE["dim"],
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Clip(CLIPTextModelWithProjection(config), ImageTower(**SHAPE))


def loss_of(logits: Tensor, tokens: Tensor) -> Tensor:
    """Symmetric cross-entropy; equal captions share the target."""
    same = (tokens[:, None] == tokens[None]).all(-1).float()
    wanted = same / same.sum(1, keepdim=True)
    rows = -(wanted * logits.log_softmax(1)).sum(1).mean()
    columns = -(wanted * logits.T.log_softmax(1)).sum(1).mean()
    return (rows + columns) / 2


def train(
    pictures: Pictures, tokenizer: CLIPTokenizer, folder: Path, minutes: float, *, layers: int = 6
) -> Clip:
    """Train until the time budget is used, and save the parts.

    Args:
        pictures: to learn from, with composed scenes mixed in.
        tokenizer: a trained tokenizer.
        folder: gets ``text_encoder`` and, in ``judge``, ``clip_image`` and ``clip_text``.
        minutes: time budget.
        layers: depth of the text encoder.
    """
    device, dtype = device_and_dtype()
    torch.manual_seed(0)
    model = new_clip(tokenizer, layers).to(device)
    run = TrainingRun(folder, minutes)
    run.restore(model)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.02)
    stream = _batches(pictures, tokenizer, 64, run.step)
    while not run.done:
        for group in optimizer.param_groups:
            group["lr"] = run.rate(1e-3)
        shown, tokens = (part.to(device) for part in next(stream))
        with autocast(device, dtype):
            logits = model(shown, tokens)
        loss = loss_of(logits.float(), tokens)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        run.step += 1
        if run.step % 100 == 0:
            right = (logits.argmax(1).cpu() == torch.arange(len(logits))).float().mean()
            run.note({"loss": loss, "right": right})
        if run.due():
            run.save(model)
    run.save(model)
    save(model.eval().cpu(), folder)
    return model


def save(model: Clip, folder: Path) -> None:
    """Write the text encoder in its standard class, and the judge's parts."""
    (folder / "judge").mkdir(parents=True, exist_ok=True)
    model.text.text_model.save_pretrained(folder / "text_encoder")
    save_file(model.images.state_dict(), folder / "judge" / "clip_image.safetensors")
    save_file(
        {"weight": model.text.text_projection.weight.detach()}, folder / "judge" / "clip_text.safetensors"
    )


def _batches(
    pictures: Pictures, tokenizer: CLIPTokenizer, size: int, seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    stream = items(pictures, seed, Mix(composed=0.25, empty=0.0))
    while True:
        chosen = list(itertools.islice(stream, size))
        plain = pictures.on_white(torch.tensor([item.index for item in chosen]))
        shown = [p if item.picture is None else item.picture for item, p in zip(chosen, plain, strict=True)]
        texts = [item.caption for item in chosen]
        tokens = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
        noisy = torch.stack(shown) * 2 - 1
        yield noisy + 0.03 * torch.randn_like(noisy), tokens
