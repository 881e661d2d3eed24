"""What a judge says of pictures and texts, compared with what such an answer has to be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ..models.errors import UsageError, WrongTypeError
from ..models.judges.choosing import Function, TextJudge, about_judge, any_judge


def fits(
    judge: TextJudge | Function, images: Float[Tensor, "sample 3 height width"], texts: Sequence[str]
) -> Float[Tensor, "sample text"]:
    """Ask a judge how well every picture fits every text; no gradient, in main memory.

    Args:
        judge: a judge, or a function of pictures and texts.
        images: in 0..1.
        texts: what may be seen.

    Raises:
        TypeError: if it does not return a tensor.
        ValueError: if it returns another shape or infinite values; NaN is no opinion.
    """
    asked = any_judge(judge)
    with torch.no_grad():
        found = asked.similarity(images, list(texts))
    name, shape = about_judge(asked)["name"], [len(images), len(texts)]
    if not isinstance(found, Tensor):
        raise WrongTypeError(
            f"the judge {name!r} returned {type(found).__name__}; return a tensor of shape {shape}, a number "
            "for each picture and text"
        )
    if list(found.shape) != shape:
        raise UsageError(
            f"the judge {name!r} returned shape {list(found.shape)} for {shape[0]} pictures and {shape[1]} "
            f"texts; return {shape}, a number for each picture and text"
        )
    if found.isinf().any():
        raise UsageError(f"the judge {name!r} returned infinite values: {found.flatten()[:6].tolist()}")
    return found.detach().float().cpu()


def check_sees(
    judge: TextJudge | Function,
    scores: Float[Tensor, "state prompt seed text"],
    images: Mapping[str, Float[Tensor, "prompt seed 3 height width"]],
) -> None:
    """Raise ValueError for a judge that says the same of all pictures of each prompt, where these differ.

    The same to the bit: what looks at pictures does not do that with numbers. Plain answers (0, 1) may agree,
    as long as not all texts get the same.

    Args:
        judge: who said it.
        scores: what it said.
        images: of what, state by state.
    """
    states = list(images.values())
    differ = [
        any(not torch.equal(picture, states[0][p][0]) for state in states for picture in state[p])
        for p in range(scores.shape[1])
    ]
    said = scores[:, differ].transpose(0, 1).flatten(1, 2)  # [prompt, picture, text]
    if not said.numel() or not (said == said[:, :1]).all():
        return
    if (said == said.round()).all() and len(said.unique()) > 1:
        return
    name, n = about_judge(any_judge(judge))["name"], said.shape[0] * said.shape[1]
    raise UsageError(
        f"the judge {name!r} says the same of all pictures of a prompt, {said[0, 0, 0]:g} for example, "
        f"though these {n} pictures differ; it does not look at them: give another, or mend it"
    )
