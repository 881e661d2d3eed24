"""The embedded models: small, trained on openly licensed emoji; ``zoo.folder("emoji")`` is where one lies.

What two models share to the bit (text encoder, tokenizer, autoencoder) is stored once; ``zoo.export`` puts a
model together for plain diffusers. ``zoo.data()`` is what ships for evaluations.
"""

from __future__ import annotations

from .evaluation_data import EvaluationData, data
from .folders import ZOO, export, folder, place, shared

__all__ = ["ZOO", "EvaluationData", "data", "export", "folder", "place", "shared"]
