"""Read weights without the two libraries' own progress bars, and without a warning about our own models."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from .undo import Undo


@contextmanager
def no_bars() -> Iterator[None]:
    """Keep progress bars away while the context lasts, and leave the switch as it was.

    Also keep away diffusers' remark that a PixArt pipeline usually has T5 for its text encoder: ``emoji-dit``
    has a CLIP, and works.
    """
    shown = [log for log in (diffusers_logging, transformers_logging) if log.is_progress_bar_enabled()]
    remarks = logging.getLogger("diffusers.pipelines.pipeline_utils")
    with Undo() as undo:
        undo.add(partial(remarks.removeFilter, _is_news))
        remarks.addFilter(_is_news)
        for log in shown:
            undo.add(log.enable_progress_bar)
            log.disable_progress_bar()
        yield


def _is_news(record: logging.LogRecord) -> bool:
    said = record.getMessage()
    return not (said.startswith("Expected types for text_encoder") and "CLIPTextModel" in said)
