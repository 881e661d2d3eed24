"""What is measured on steered pictures, as it is said on the command line."""

from __future__ import annotations

from collections.abc import Sequence

from ..analysis.metrics import Classifier, Metric, judge_log_odds, text_fit
from ..models.base import Model
from ..models.errors import UsageError
from ..models.judges.choosing import any_judge
from ..models.judges.labelled import Labelled, position
from ..models.zoo import ZOO


def measures_of(
    said: Sequence[str], model: Model, judge: str | None = None, device: str = "cpu"
) -> dict[str, Metric]:
    """Return metrics by what was said of them.

    Args:
        said: ``"gender=woman"``, an attribute and its label by the judge, in logits; or a text, by how well
            it fits.
        model: whose pictures they are; its own judge is taken if it ships with one.
        judge: a folder or hub id of another.
        device: where the judge computes.

    Raises:
        ValueError: if there is no judge, or none that knows attributes.
        LookupError: for an attribute or a label that the judge does not know.
    """
    if not said:
        return {}
    named = judge or (model.name if model.name in ZOO else None)
    if named is None:
        raise UsageError(
            f"{said[0]!r} cannot be measured: no judge ships with {model.name}; name one by --judge"
        )
    who = any_judge(named, device)
    found: dict[str, Metric] = {}
    for one in said:
        attribute, equals, label = one.partition("=")
        if not equals:
            found[one] = text_fit(who, one)
            continue
        if not isinstance(who, Labelled) or not isinstance(who, Classifier):
            raise UsageError(
                f"{one!r} asks for an attribute, and this judge reads texts: --measure 'a {label}'"
            )
        position(who, attribute, label)  # an unknown one is told before anything is painted
        found[one] = judge_log_odds(who, attribute, label)
    return found


def numbers(said: str) -> list[float]:
    """Return the numbers of ``"-1,0,1.5"``.

    Raises:
        ValueError: if it is something else.

    >>> numbers("-1, 0,1.5")
    [-1.0, 0.0, 1.5]
    """
    try:
        return [float(one) for one in said.split(",")]
    except ValueError:
        raise UsageError(
            f"strengths are {said!r}; write numbers with commas between them: -1,0,1.5"
        ) from None
