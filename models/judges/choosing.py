"""Whatever can judge, as a judge: a name, a function, or one that is open already."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from .. import zoo
from ..arguments import checked
from ..errors import WrongTypeError
from ..store.fingerprint import network_hash, tensor_hash
from ..store.identity import is_from, spec_of
from ..store.provenance import plain
from .classifier import classifier_judge
from .clip import clip_judge
from .embedded import load_judge
from .labelled import Labelled
from .opening import CLASSIFIER, architecture, folder_of
from .preparing import Preparation

_NOT_TOLD = ("name", "about", "_read", "_names")
"""Of judges: where they lie, and what follows from the rest."""

FUNCTION = "a function"
"""The kind of judge that a function is, in provenance."""
Function = Callable[[Tensor, Sequence[str]], Tensor]
"""From pictures [sample, 3, height, width] in 0..1 and texts to how well they fit, [sample, text]."""


@runtime_checkable
class TextJudge(Protocol):
    """What every judge can say; ``clip_score`` and ``check`` are asked where they are there."""

    def similarity(self, images: Tensor, texts: Sequence[str], /) -> Tensor:
        """How well every picture fits every text, [sample, text]."""


@dataclass(frozen=True, eq=False)
class CallableJudge:
    """A function as a judge.

    Args:
        function: how well every picture fits every text, [sample, text].
        name: what provenance calls it.
    """

    function: Function
    name: str

    @property
    def about(self) -> dict[str, str]:
        """For provenance: its name; of what it computes with nobody knows."""
        return {"name": self.name, "kind": FUNCTION}

    def similarity(self, images: Tensor, texts: Sequence[str], /) -> Tensor:
        """How well every picture fits every text, [sample, text], as the function says."""
        return self.function(images, list(texts))


@checked
def callable_judge(function: Function, name: str | None = None) -> CallableJudge:
    """Make a judge of a function; what takes judges does so by itself, with the function's own name.

    Args:
        function: from pictures [sample, 3, height, width] in 0..1 and texts to how well they fit,
            [sample, text].
        name: what provenance calls it; None is the function's own.

    >>> judge = callable_judge(lambda images, texts: images.new_ones(len(images), len(texts)), "blind")
    >>> judge.similarity(torch.ones(2, 3, 8, 8), ["a", "b", "c"]).shape
    torch.Size([2, 3])
    """
    own: str = getattr(function, "__qualname__", type(function).__name__)
    return CallableJudge(function, own if name is None else name)


@checked
def any_judge(source: Any, device: str = "cpu", dtype: torch.dtype = torch.float32) -> TextJudge:
    """Return what can judge as a judge.

    Args:
        source: a judge; a function of pictures and texts; the name of an embedded model; or a folder or hub
            id of a CLIP, a SigLIP or an image classifier in transformers' format.
        device: where it computes, if it is opened here.
        dtype: number format of its weights, if it is opened here.

    Raises:
        TypeError: for anything else.
        LookupError: if there is no such folder.
        ValueError: for checkpoints that cannot be judges, as ``clip_judge`` and ``classifier_judge`` say.
    """
    if isinstance(source, TextJudge):
        return source
    if isinstance(source, str | Path):
        if str(source) in zoo.ZOO:
            return load_judge(str(source))
        if architecture(folder_of(source)).endswith(CLASSIFIER):
            return classifier_judge(source, device=device, dtype=dtype)
        return clip_judge(source, device=device, dtype=dtype)
    if callable(source):
        return callable_judge(source)
    raise WrongTypeError(
        f"the judge is {source!r}; give a folder or hub id, clip_judge(...), classifier_judge(...), or a "
        "function of pictures and texts"
    )


def judge_spec(judge: Any) -> Any:
    """Return what a judge is now, as a value: its weights and how it prepares pictures; else its ``spec``.

    Where it lies is not part of it: the same judge is the same on every machine.

    Raises:
        ValueError: for code of one's own without a spec: nobody can tell whether it is still the same.
    """
    if isinstance(judge, str | Path):
        judge = any_judge(judge)
    if not (isinstance(judge, Labelled) and is_from(judge, ("denoscope",))):
        return spec_of(judge.function if isinstance(judge, CallableJudge) else judge, "the judge")
    told = {name: _told(value) for name, value in vars(judge).items() if name not in _NOT_TOLD}
    return {"kind": type(judge).__name__, **told}


def _told(value: Any) -> Any:
    if isinstance(value, nn.Module):
        formats = sorted({str(t.dtype) for t in value.parameters()})
        return [type(value).__name__, formats, network_hash(value.state_dict())]
    if isinstance(value, Tensor):
        return [str(value.dtype), tensor_hash(value)]
    if isinstance(value, Preparation):
        return asdict(value)
    return plain(value) if isinstance(value, Mapping) else type(value).__name__


def about_judge(judge: Any) -> dict[str, str]:
    """Return what provenance says of a judge: its name, and a hash of its weights where it has some."""
    told = getattr(judge, "about", None)
    return dict(told) if isinstance(told, dict) else {"name": type(judge).__name__}
