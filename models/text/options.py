"""How text is read, where a family leaves a choice."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypedDict

from torch import Tensor

from ..arguments import read
from ..errors import UsageError, WrongTypeError

LongPrompts: TypeAlias = Literal["error", "chunks"] | int
Pair: TypeAlias = tuple[int, int]


class TextOptions(TypedDict, total=False):
    """The choices: what is left out is as the family's pipeline does it."""

    clip_skip: int | None
    long_prompts: LongPrompts


MOST_CHUNKS = 1000
DEFAULTS: dict[str, Any] = {"clip_skip": None, "long_prompts": "error"}


def chosen_options(reader: Callable[..., Any], name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what differs from the defaults.

    Raises:
        ValueError: for a choice that a model's reader does not leave.
        TypeError: for one that there is not.
    """
    if unknown := set(given) - set(DEFAULTS):
        raise WrongTypeError(
            f"there is no option {sorted(unknown)} of reading text; there are {sorted(DEFAULTS)}"
        )
    for option, value in given.items():
        read(option, value, {"clip_skip": int | None, "long_prompts": LongPrompts}[option])
    options = {option: value for option, value in given.items() if value != DEFAULTS[option]}
    long = options.get("long_prompts", "chunks")
    if long != "chunks" and (not isinstance(long, int) or not 1 <= long <= MOST_CHUNKS):
        raise UsageError(
            f"long_prompts is {long!r}; it is 'error', 'chunks' or a number of chunks, 1 to {MOST_CHUNKS}"
        )
    for option, value in options.items():
        if option not in inspect.signature(reader).parameters:
            raise UsageError(f"{option} is {value!r}, but {name} takes no {option}; leave it out")
    return options


def skipped_layer(states: Sequence[Tensor], clip_skip: int, last: int) -> Tensor:
    """Return the states after a layer before the last one that counts.

    Args:
        states: before the first layer and after every layer.
        clip_skip: how many layers are left out.
        last: which counts where none is, from the end: 1 is the last.

    Raises:
        ValueError: for more layers than there are.
    """
    most = len(states) - last
    if not isinstance(clip_skip, int) or not 0 <= clip_skip <= most:
        raise UsageError(f"clip_skip is {clip_skip!r}; the text encoder can leave out 0 to {most} layers")
    return states[-(clip_skip + last)]
