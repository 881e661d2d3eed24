"""The embedded models: small, trained on openly licensed emoji; ``zoo.folder("emoji")`` is where one lies.

What two models share to the bit (text encoder, tokenizer, autoencoder) is stored once; ``zoo.export`` puts a
model together for plain diffusers.
"""

from __future__ import annotations

from .folders import ZOO, export, folder, place, shared

__all__ = ["ZOO", "export", "folder", "place", "shared"]
