"""The uncentred second moment of what a layer of a text encoder reads: C of ROME and MEMIT."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ..models import zoo
from ..models.base import Model
from ..models.errors import UsageError
from ..models.progress import Progress, showing
from ..models.site import Site
from ..probes.text_states import TEXT_BATCH, layer_inputs
from .requests import kept_rows

CAPTIONS = 600
"""Captions that are read where none are given."""


def captions() -> tuple[str, ...]:
    """Return the first training captions of the embedded models, each once: what is read by default."""
    return tuple(dict.fromkeys(zoo.data().captions.texts))[:CAPTIONS]


def captions_for(model: Model, given: Sequence[str] | None) -> tuple[str, ...]:
    """Return the captions that were given, or those that are read by default.

    Raises:
        ValueError: where none are given, and the model has no room for the longest of the usual ones.
    """
    if given is not None:
        return tuple(given)
    usual = captions()
    try:
        model.encode(sorted(usual, key=len)[-8:])  # at once, not after minutes of search
    except UsageError as error:
        raise UsageError(
            f"the captions that are read where none are given are too long for this model ({error}); give "
            "ordinary texts of what it paints: captions=[...]"
        ) from error
    return usual


def second_moment(
    model: Model,
    site: Site | str,
    texts: Sequence[str],
    *,
    padding: bool = True,
    progress: Progress | None = None,
) -> Float[Tensor, "in in"]:
    """Return C = E[x xᵀ] over the tokens x of some texts, in float64.

    Texts are read some at a time and only the sum is kept; a text given twice counts once.

    Args:
        model: an opened model.
        site: a layer of a text encoder.
        texts: ordinary captions. ROME reads 100,000 of them; below as many tokens as the layer has inputs, C
            is singular.
        padding: whether padding counts like other tokens; many denoisers read it.
        progress: called with (done, total, what).

    Raises:
        LookupError: for a site that the model does not have.
        ValueError: for no texts, texts that are too long, and a site outside the text encoders.
    """
    once = list(dict.fromkeys(texts))
    if not once:
        raise UsageError("captions is empty; give ordinary texts, of what the model paints")
    total, count = torch.zeros((), dtype=torch.float64), 0
    with showing(progress) as show:
        for first in range(0, len(once), TEXT_BATCH):
            for read in layer_inputs(model, once[first : first + TEXT_BATCH], site).values():
                x = read.values.double()
                x = x if padding else x[: read.words.end + 1]
                total, count = total + x.T @ x, count + len(x)
            show(min(first + TEXT_BATCH, len(once)), len(once), "reading captions")
    return total / count


def kept_keys(model: Model, site: Site | str, keep: Sequence[str]) -> Tensor | None:
    """Return what a layer reads at all tokens of the texts that must stay, in float64; None for none."""
    return kept_rows(layer_inputs(model, keep, site), keep) if keep else None


def smoothed(
    moment: Float[Tensor, "in in"], smooth: float, kept: Float[Tensor, "kept in"] | None = None
) -> Float[Tensor, "in in"]:
    """Return C with so many times its mean diagonal on the diagonal, and the mean of kept keys beside it.

    Raises:
        ValueError: for a ``smooth`` below 0, or not finite.
    """
    if not 0 <= smooth < float("inf"):
        raise UsageError(f"smooth is {smooth}; it is a finite number from 0 up, 1 by default")
    more = smooth * float(moment.diagonal().mean()) * torch.eye(len(moment), dtype=moment.dtype)
    return moment + more if kept is None else moment + more + kept.T @ kept / len(kept)
