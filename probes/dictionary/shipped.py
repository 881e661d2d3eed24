"""Dictionaries that ship: small ones, for looking and trying; each with a card beside it."""

from __future__ import annotations

from pathlib import Path

from ...models.arguments import checked
from ...models.errors import NotFoundError
from ...models.suggest import near
from .value import Dictionary

HOME = Path(__file__).parent / "made"


@checked
def shipped_dictionary(model: str = "emoji") -> Dictionary:
    """Return the dictionary that ships for an embedded model; its card is ``made/<model>.md``.

    It was trained on captions of all that the model knows, people foremost, at a site where a difference of
    means moves what is painted (docs/bias-features.md).

    Args:
        model: name of an embedded model.

    Raises:
        LookupError: for a model without one.
        ValueError: if the file is damaged.

    >>> shipped_dictionary("emoji").k
    16
    """
    there = sorted(p.stem for p in HOME.glob("*.safetensors"))
    if model not in there:
        raise NotFoundError(f"no dictionary ships for {model!r}; {near(model, there)}")
    return Dictionary.load(HOME / f"{model}.safetensors")
