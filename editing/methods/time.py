"""TIME: correct what a model assumes of an underspecified text, in the layers that read the text.

Orgad, Kawar, Belinkov: Editing Implicit Assumptions in Text-to-Image Diffusion Models, ICCV 2023
(arXiv:2303.08084), eq. 4, 5. The source says less ("a pack of roses") than the destination ("a pack of blue
roses"); every token of the source, padding included, is to be read as its fellow in the destination::

    min_W  Σ_i ‖W c_i - W0 c*_i‖² + λ ‖W - W0‖²
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...models.arguments import checked
from ...models.base import Model
from ...models.errors import UsageError
from ...models.text.prompt import Words
from ..edit import Edit
from ..requests import PromptPair
from ..text_choice import Weights
from ..text_edit import Asked, EditSettings, edit_text, named, replaced

PAPER = EditSettings(templates=("{}", "A photo of {}", "An image of {}", "A picture of {}"), ridge=0.1)
"""Keys and values, four wordings, λ 0.1: the run of the paper's tables."""
OURS = EditSettings()
SETTINGS = {"ours": OURS, "paper": PAPER}


@checked
def time(
    model: Model,
    requests: Mapping[str, str],
    *,
    keep: Sequence[str] = ("",),
    hold: Sequence[str] = (),
    weights: Weights = None,
    settings: str | EditSettings = "ours",
) -> Edit:
    """Return an Edit after which each key of ``requests`` is read as its value says it; nothing is changed.

    Args:
        model: an opened model that reads text.
        requests: source -> destination, which has all words of the source in their order:
            ``{"roses": "blue roses"}``.
        keep: texts that must be read as before, nearly; the paper keeps nothing, ``()``.
        hold: texts that must be read as before, exactly.
        weights: which layers, as in ``uce``.
        settings: "ours", "paper", or ``EditSettings`` of your own.

    Raises:
        ValueError: for a destination that is not the source with more words, and as ``uce``.
        LookupError: as ``uce``.

    >>> from denoscope.models.synthetic.tiny import tiny_sd
    >>> time(load(tiny_sd()), {"cat": "red cat"})
    Edit(time: cat -> red cat; 2,048 numbers in 8 weights; for 'StableDiffusionPipeline')
    """
    how = named(settings, SETTINGS)
    note = {"requests": dict(requests)}
    return edit_text(model, "time", asked(note, how), how, keep=keep, hold=hold, weights=weights, **note)


def asked(note: Mapping[str, Any], settings: EditSettings) -> Asked:
    """Return what an edit's note asks for."""
    return replaced(note["requests"], settings.templates), fellows


def fellows(source: Words, target: Words, pair: PromptPair) -> tuple[list[int], list[int]]:
    """Return every token of the source, and which of the target is its fellow.

    The next equal one ("an" counts as "a"), up to the end of the text; from there on one by one, the last one
    again where the target has no more.

    Raises:
        ValueError: if the target lacks a word of the source.

    >>> said = Words("cat", ("<s>", "cat", "</s>", "</s>"), ((0, 0), (0, 3), (0, 0), (0, 0)))
    >>> meant = Words("fat cat", ("<s>", "fat", "cat", "</s>"), ((0, 0), (0, 3), (4, 7), (0, 0)))
    >>> fellows(said, meant, PromptPair("cat", "fat cat", "cat", "fat cat", 0))
    ([0, 1, 2, 3], [0, 2, 3, 3])
    """
    spelled = [
        ["a" if t.strip("</w>▁Ġ") == "an" else t.strip("</w>▁Ġ") for t in w.tokens] for w in (source, target)
    ]
    found, j = list[int](), 0
    for token in spelled[0][: source.end + 1]:
        while j < len(spelled[1]) and spelled[1][j] != token:
            j += 1
        if j == len(spelled[1]):
            raise UsageError(
                f"{pair.target!r} is not {pair.source!r} with more words: it lacks {token!r} there. TIME "
                "makes a text say more; to replace a word take uce or quickfix"
            )
        found.append(j)
        j += 1
    rest = len(source.tokens) - len(found)
    last = len(target.tokens) - 1
    return list(range(len(source.tokens))), [*found, *(min(j + i, last) for i in range(rest))]
