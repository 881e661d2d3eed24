"""LocoEdit: replace a style, object or fact in the few cross-attention layers that carry it.

Basu, Rezaei, Kattakinda, Rossi, Zhao, Morariu, Manjunatha, Feizi: On Mechanistic Knowledge Localization in
Text-to-Image Generative Models, ICML 2024 (arXiv:2405.01008), eq. 4. Keys and values of the layers that
``locogen`` finds are changed so that the text's last token is read as that of a plainer text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...models.arguments import checked
from ...models.base import Model
from ...models.site import Site
from ...models.text.prompt import Words
from ..edit import Edit
from ..requests import PromptPair
from ..text_edit import Asked, EditSettings, Wish, edit_text, named, replaced

PAPER = EditSettings(
    templates=(
        "{}",
        "a painting in the style of {}",
        "a photo in the style of {}",
        "a picture in the style of {}",
    ),
    ridge=0.01,
)
OURS = EditSettings()
SETTINGS = {"ours": OURS, "paper": PAPER}


@checked
def locoedit(
    model: Model,
    requests: Mapping[str, str],
    *,
    weights: str | Site | Sequence[str | Site],
    keep: Sequence[str] = ("",),
    hold: Sequence[str] = (),
    settings: str | EditSettings = "ours",
) -> Edit:
    """Return an Edit of a few layers after which each key of ``requests`` is read as its value.

    Args:
        model: an opened model that reads text.
        requests: what is said -> what is meant; with the paper's settings a text of its own,
            ``{"van gogh": "a painting"}``.
        weights: the layers, as ``locogen`` or another analysis found them: their sites.
        keep: texts that must be read as before, nearly.
        hold: texts that must be read as before, exactly.
        settings: "ours"; "paper", one row a wording, its last token before the end (the authors' code has a
            flag for all tokens that does nothing); or ``EditSettings`` of your own.

    Raises:
        ValueError, LookupError: as ``uce``.

    >>> from denoscope.models.synthetic.tiny import tiny_sd
    >>> locoedit(load(tiny_sd()), {"cat": "dog"}, weights="unet/mid.attn.0.0/cross_attn.out")
    Edit(locoedit: cat -> dog; 512 numbers in 2 weights; for 'StableDiffusionPipeline')
    """
    how = named(settings, SETTINGS)
    note = {"requests": dict(requests)}
    return edit_text(model, "locoedit", asked(note, how), how, keep=keep, hold=hold, weights=weights, **note)


def asked(note: Mapping[str, Any], settings: EditSettings) -> Asked:
    """Return what an edit's note asks for."""
    wishes = replaced(note["requests"], settings.templates)
    return ([_plain(wish) for wish in wishes], last) if settings == PAPER else (wishes, None)


def last(source: Words, target: Words, _: PromptPair) -> tuple[list[int], list[int]]:
    """Return the last token of both texts."""
    return [source.end - 1], [target.end - 1]


def _plain(wish: Wish) -> Wish:
    """The same wording, to be read as the bare target text."""
    (pair,) = wish.pairs
    return Wish((PromptPair(pair.source, pair.meant, pair.said, pair.meant, pair.at),), wish.amounts)
