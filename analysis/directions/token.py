"""Directions in the encoded text: what words change at a subject's tokens, at the end, and in the padding.

Baumann et al. 2025, "Continuous, Subject-Specific Attribute Control in T2I Models by Identifying Semantic
Directions" (arXiv:2403.17064): the difference of two texts' embeddings at the noun, or a delta that is
learned (``learned.py``). Published are the noun's tokens alone; in the embedded models the token after the
text and the padding carry the attribute too, and are steered by default.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from ...models.arguments import checked
from ...models.base import Model, Prompt
from ...models.errors import UsageError
from ...models.progress import Progress
from ...models.site import Site
from ...models.store.provenance import provenance
from ...probes.direction import Direction
from ...probes.directions.moments import Examples, check_pairs
from ...probes.directions.token_rows import KINDS, TokenRows
from ...probes.text_states import encoded
from .learned import Learned, learn

Rows: TypeAlias = Literal["subject", "end", "padding", "pooled"]
ALL: tuple[Rows, ...] = ("subject", "end", "padding", "pooled")


@checked
def token_direction(
    model: Model,
    positive: Sequence[str],
    negative: Sequence[str],
    subject: str | Sequence[str],
    *,
    rows: Sequence[Rows] | None = None,
    method: Literal["contrast"] | Learned = "contrast",
    neutral: Sequence[str] | None = None,
    negative_subject: str | Sequence[str] | None = None,
    progress: Progress | None = None,
) -> Direction:
    """Return a direction of the encoded text, of all text encoders together, from pairs of texts.

    By contrast, the mean over pairs of ``E(positive) - E(negative)``: at the last token of the subject (eq.
    2 of the paper), at the token after the text, as a mean over the padding, and of the pooled text where
    the model reads one. Each text is encoded once. ``direction.of("cook").steer(1.0)`` adds it to all tokens
    of a cook; strength 1 is the whole difference.

    Args:
        model: an opened model that reads text.
        positive: texts with the attribute, ``"a noto emoji of a woman cook"``.
        negative: the same without it or with its opposite, one for each.
        subject: whose attribute it is, ``"cook"``; or one for each pair. ``"cook:2"`` is the second of two.
        rows: what is steered: ``"subject"``, ``"end"``, ``"padding"``, ``"pooled"``; None is all that there
            are, by contrast, and the subject alone if it is learned, as published.
        method: "contrast", or the settings of a fit: ``Learned(steps=200)``.
        neutral: for a fit, the texts whose pictures are to change, one for each pair; None is ``negative``.
        negative_subject: by contrast, what stands in the subject's place in the negative texts where it is
            another word, as from a firefighter to a cook; one, or one for each pair.
        progress: called with (done, total, what).

    Returns:
        A Direction at the denoiser's text (and pooled text), for rows of a subject that is yet to be named.

    Raises:
        ValueError: for texts that do not pair, a subject that stands twice in a text without saying which,
            and rows at which the texts do not differ.
        LookupError: for a subject that is not in its text.

    >>> from denoscope.models.synthetic.tiny import tiny_sd
    >>> model = load(tiny_sd())
    >>> red = token_direction(model, ["a red cat"], ["a blue cat"], "cat")
    >>> run = trace(model, ["a dog"], seeds=[0], steps=2, interventions=[red.of("dog").steer(0.5)])
    """
    check_pairs(positive, negative, neutral)
    chosen = _chosen(rows, method)
    subjects = _each(subject, len(positive))
    theirs = subjects if negative_subject is None else _each(negative_subject, len(positive))
    about = {
        "rows": list(chosen),
        "pairs": [list(pair) for pair in zip(positive, negative, strict=True)],
        "subject": subjects,
        "method": "contrast" if method == "contrast" else "learned",
        **({} if negative_subject is None else {"negative_subject": theirs}),
    }
    if isinstance(method, Learned):
        if negative_subject is not None:
            raise UsageError(
                "a fit changes one subject, so negative_subject has no place in it; leave it out"
            )
        examples = Examples(list(neutral or negative), list(positive), list(negative))
        vectors, told = learn(model, examples, subjects, method, chosen, progress=progress)
    else:
        vectors, told = _contrast(model, (positive, negative), (subjects, theirs), chosen), {}
    kinds = tuple(k for k in KINDS if k in chosen)
    _check_differ(vectors, chosen)
    left = {site: v for site, v in vectors.items() if bool(v.any())}
    found = provenance(model, **about, **told)
    return Direction(left, rows=TokenRows(kinds) if kinds else None, about=found)


def _each(subject: str | Sequence[str], n: int) -> list[str]:
    subjects = [subject] * n if isinstance(subject, str) else list(subject)
    if len(subjects) != n:
        raise UsageError(f"{len(subjects)} subjects for {n} pairs; give one, or one a pair")
    return subjects


def _chosen(rows: Sequence[Rows] | None, method: object) -> tuple[Rows, ...]:
    if rows is not None and (not rows or not set(rows) <= set(ALL)):
        raise UsageError(f"rows is {list(rows)}; it holds some of {', '.join(ALL)}")
    default = ALL if method == "contrast" else ALL[:1]
    return tuple(k for k in ALL if k in (default if rows is None else rows))


def _contrast(
    model: Model,
    texts: tuple[Sequence[str], Sequence[str]],
    subjects: tuple[Sequence[str], Sequence[str]],
    chosen: Sequence[Rows],
) -> dict[Site, Tensor]:
    """The mean difference of texts, positive less negative, by site."""
    positive, negative = texts
    read = encoded(model, [*positive, *negative])
    part, kinds = model.input_site.component, [k for k in KINDS if k in chosen]
    found = {}
    if kinds:
        each = [
            states(read[p], kinds, own) - states(read[n], kinds, their)
            for p, n, own, their in zip(positive, negative, *subjects, strict=True)
        ]
        found[Site(f"{part}/in/text")] = torch.stack(each).nanmean(0).nan_to_num()
    a, b = ([read[t].pooled for t in texts] for texts in (positive, negative))
    pooled = [x.float() - y.float() for x, y in zip(a, b, strict=True) if x is not None and y is not None]
    if "pooled" in chosen and pooled:
        found[Site(f"{part}/in/pooled")] = torch.stack(pooled).mean(0).cpu()
    return found


def states(prompt: Prompt, kinds: Sequence[str], subject: str) -> Tensor:
    """Return the state of each kind of row, tokenizer by tokenizer, [row, channel]; NaN where there is none.

    Of the subject it is its last token's, of the padding the mean.
    """
    rows, found, first = TokenRows(tuple(kinds), subject), [], 0
    embeds = prompt.embeds.float().cpu()
    for words in prompt.segments:
        for kind in kinds:
            at = [first + t for t in rows.positions(words, kind)]
            at = at[-1:] if kind == "subject" else at
            found.append(embeds[at].mean(0))  # of nothing: NaN
        first += len(words.tokens)
    return torch.stack(found)


def _check_differ(vectors: dict[Site, Tensor], chosen: Sequence[Rows]) -> None:
    if not vectors:
        raise UsageError(f"the model reads no pooled text, and rows is {list(chosen)}; give another, or None")
    if not any(bool(v.any()) for v in vectors.values()):
        raise UsageError(
            f"the texts do not differ at rows {list(chosen)}: where a text encoder reads from left to right, "
            "a subject's tokens know nothing of words after it; put the attribute before it, or give no rows"
        )
