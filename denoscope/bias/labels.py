"""Which classes of pictures are counted, and by whom, as it is said on the command line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..models.base import Model
from ..models.errors import NotFoundError, UsageError
from ..models.judges.choosing import any_judge
from ..models.judges.labelled import Labelled
from ..models.suggest import near
from ..models.zoo import ZOO


@dataclass(frozen=True, eq=False)
class Classes:
    """Labels of one attribute, and the judge that gives them.

    Args:
        attribute: of the judge.
        names: which of its labels count.
        judge: who looks; it knows attributes.
    """

    attribute: str
    names: tuple[str, ...]
    judge: Any

    @property
    def label(self) -> Callable[[Tensor], list[str]]:
        """Says of pictures what each shows."""
        labels = self.judge.labels(self.attribute)

        def said(images: Tensor) -> list[str]:
            best = self.judge.probabilities(images.float(), self.attribute).argmax(1)
            return [labels[i] for i in best.tolist()]

        return said


def judge_of(model: Model, judge: str | None = None, device: str = "cpu") -> Any:
    """Return the judge that was named, or the one that ships with a model.

    Raises:
        ValueError: if there is none.
    """
    named = judge or (model.name if model.name in ZOO else None)
    if named is None:
        raise UsageError(f"no judge ships with {model.name}; name one that knows attributes by --judge")
    return any_judge(named, device)


def classes_of(said: str, model: Model, judge: str | None = None, device: str = "cpu") -> Classes:
    """Return classes by what was said of them: ``"gender=woman,man"``.

    Raises:
        ValueError: if it is something else, and without a judge that knows attributes.
        LookupError: for an attribute or a label that the judge does not know.
    """
    attribute, _, rest = said.partition("=")
    names = tuple(part.strip() for part in rest.split(",") if part.strip())
    if len(set(names)) != 2 or len(names) != 2:
        raise UsageError(f"classes are {said!r}; write an attribute and two of its labels: gender=woman,man")
    who = judge_of(model, judge, device)
    if not isinstance(who, Labelled):
        raise UsageError(
            f"{said!r} asks for an attribute, and this judge knows none; name another by --judge"
        )
    known = who.labels(attribute)
    for name in names:
        if name not in known:
            raise NotFoundError(f"{attribute} is never {name!r}; {near(name, known)}")
    return Classes(attribute, names, who)
