"""Full-size text encoders, in their published configurations."""

from __future__ import annotations

from typing import Any

import transformers

BIG_CLIP: dict[str, Any] = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "projection_dim": 1280,
    "hidden_act": "gelu",
}


def clip(projected: bool = False, **changes: Any) -> Any:
    """OpenAI's CLIP ViT-L/14 text tower, with changes."""
    real = {
        "vocab_size": 49408,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "max_position_embeddings": 77,
        "hidden_act": "quick_gelu",
    }
    config = transformers.CLIPTextConfig(**{**real, **changes})
    return (
        transformers.CLIPTextModelWithProjection(config) if projected else transformers.CLIPTextModel(config)
    )


class _Maskless:
    """A text encoder without its padding mask: on the meta device a mask has no values to be looked at."""

    def forward(self, input_ids: Any = None, attention_mask: Any = None, **options: Any) -> Any:  # noqa: ARG002
        return super().forward(input_ids, **options)  # type: ignore[misc]  # of the encoder it stands before


class _MasklessT5(_Maskless, transformers.T5EncoderModel):  # type: ignore[misc]  # untyped to mypy
    pass


def t5() -> transformers.T5EncoderModel:
    """T5 v1.1 XXL."""
    return _MasklessT5(
        transformers.T5Config(
            vocab_size=32128,
            d_model=4096,
            d_kv=64,
            d_ff=10240,
            num_layers=24,
            num_heads=64,
            feed_forward_proj="gated-gelu",
        )
    )


class _MasklessGemma(_Maskless, transformers.Gemma2Model):  # type: ignore[misc]  # untyped to mypy
    pass


def gemma() -> transformers.Gemma2Model:
    """Gemma 2 2B, whose sizes are the defaults of its configuration."""
    return _MasklessGemma(transformers.Gemma2Config())
