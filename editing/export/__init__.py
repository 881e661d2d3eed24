"""Edits in the formats of other tools: LoRAs, whole pipelines, checkpoints of one file."""

from ...models.lazy import lazily

__getattr__, __dir__, __all__ = lazily(
    __name__,
    {
        "checkpoint": "one_file",
        "lora": "lora_file",
        "pipeline": "pipeline_folder",
    },
)
