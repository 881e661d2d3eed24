"""Which analyses an investigation knows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...models.errors import NotFoundError, UsageError
from ...models.suggest import near

ANALYSES = ("mediation", "information", "features", "directions")


def check_analyses(asked: Sequence[str] | None, dictionary: str | Path | None) -> None:
    """Raise an error for analyses that there are not, none, and features without a dictionary.

    Raises:
        LookupError: for a name that is none of them.
        ValueError: for none, one that is asked for twice, and features that nobody can look at.
    """
    if asked is None:
        return
    for name in asked:
        if name not in ANALYSES:
            raise NotFoundError(f"there is no analysis {name!r}; {near(name, ANALYSES)}")
    if not asked or len(set(asked)) < len(asked):
        raise UsageError(f"analyses are {list(asked)}; give some of {', '.join(ANALYSES)}, each once")
    if ("features" in asked) != (dictionary is not None):
        raise UsageError(
            "a dictionary is given, and features are not among the analyses: add them, or leave it out"
            if dictionary is not None
            else "features are found in a sparse dictionary; train one by  denoscope features train, and "
            "give it: --dictionary FILE"
        )
