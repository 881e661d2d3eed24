"""Random, tiny judges in transformers' format: a CLIP, a SigLIP and an image classifier, each as a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTokenizer,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

from ..opening.quiet import no_bars
from .tiny_text import tiny_tokenizer

SIZE = 24
_TOWER: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
_VISION: dict[str, Any] = {**_TOWER, "image_size": SIZE, "patch_size": 8}


def save_tiny_clip(folder: Path, length: int = 32) -> Path:
    """Write a random CLIPModel with its tokenizer and image processor to a folder, and return it."""
    tokenizer = tiny_tokenizer(length)
    config = CLIPConfig(text_config=_text(tokenizer, length), vision_config=_VISION, projection_dim=16)
    with torch.random.fork_rng(devices=[]), no_bars():
        torch.manual_seed(0)
        CLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    sides: dict[str, Any] = {"size": {"shortest_edge": SIZE}, "crop_size": {"height": SIZE, "width": SIZE}}
    CLIPImageProcessor(**sides).save_pretrained(folder)
    return folder


def save_tiny_siglip(folder: Path, length: int = 32) -> Path:
    """Write a random SiglipModel with a tokenizer and its image processor to a folder, and return it.

    The tokenizer is CLIP's: SigLIP's own needs a library for its pieces, and any will do.
    """
    tokenizer = tiny_tokenizer(length)
    text = {**_text(tokenizer, length), "projection_size": 16}
    config = SiglipConfig(text_config=text, vision_config=_VISION)
    with torch.random.fork_rng(devices=[]), no_bars():
        torch.manual_seed(0)
        SiglipModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    SiglipImageProcessor(size={"height": SIZE, "width": SIZE}).save_pretrained(folder)
    return folder


def save_tiny_classifier(folder: Path, labels: Sequence[str] = ("cat", "dog", "cook")) -> Path:
    """Write a random ViT classifier with its image processor to a folder, and return it."""
    config = ViTConfig(**_VISION, id2label=dict(enumerate(labels)))
    with torch.random.fork_rng(devices=[]), no_bars():
        torch.manual_seed(0)
        ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": SIZE, "width": SIZE}).save_pretrained(folder)
    return folder


def _text(tokenizer: CLIPTokenizer, length: int) -> dict[str, Any]:
    return {
        **_TOWER,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": length,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.eos_token_id,
    }
