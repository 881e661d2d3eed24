"""What acts while a model runs, as values with a file: a direction, or features of a dictionary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from ...models.errors import UsageError
from ...models.run.context import When
from ...models.store.tensor_file import TensorFile
from ...probes.dictionary import Dictionary
from ...probes.direction import Direction
from ...probes.directions.where_said import where_said
from ...probes.intervene import Intervention

FEATURES = TensorFile(
    "pushed_features",
    1,
    {"features": [int], "how": str, "dictionary": str, "word": str, "branch": str | None},
    "Push.save",
)


@dataclass(frozen=True, eq=False)
class Steer:
    """A direction that is added.

    Args:
        direction: with its subject, if it is one of rows of a text.
        strength: how many times.
        word: it acts for prompts that hold it; empty is for all.
        branch: of guidance; None is all.
    """

    direction: Direction
    strength: float = 1.0
    word: str = ""
    branch: str | None = "cond"

    @property
    def interventions(self) -> tuple[Intervention, ...]:
        """What is added where."""
        acting = tuple(d.steer(self.strength, When(branch=self.branch)) for d in self.direction)
        return where_said(self.word, acting) if self.word else acting

    @property
    def told(self) -> Mapping[str, Any]:
        """What it is, as JSON."""
        own = {"strength": self.strength, "word": self.word, "branch": self.branch}
        return {"kind": "steering", "sites": [str(s) for s in self.direction.sites], **own}

    def save(self, path: Path) -> None:
        """Write the direction, with how it acts in its header."""
        steer = {"strength": self.strength, "word": self.word, "branch": self.branch}
        self.direction.noted(steer=steer).save(path)

    @classmethod
    def load(cls, path: Path) -> Steer:
        """Read what ``save`` wrote."""
        direction = Direction.load(path)
        return cls(direction, **direction.about["steer"])


@dataclass(frozen=True, eq=False)
class Push:
    """Features of a dictionary that are made stronger or weaker.

    Args:
        dictionary: whose.
        features: which.
        by: the number for each.
        how: "scale", "add" or "set".
        word: it acts for prompts that hold it; empty is for all.
        branch: of guidance; None is all.
    """

    dictionary: Dictionary
    features: tuple[int, ...]
    by: tuple[float, ...]
    how: str = "scale"
    word: str = ""
    branch: str | None = "cond"

    @cached_property
    def interventions(self) -> tuple[Intervention, ...]:
        """What is done to the features."""
        by: dict[str, Any] = {self.how: list(self.by)}
        edit = self.dictionary.edit(list(self.features), branch=self.branch, **by)
        return where_said(self.word, edit) if self.word else (edit,)

    @property
    def told(self) -> Mapping[str, Any]:
        """What it is, as JSON."""
        own = {"features": list(self.features), "how": self.how, "word": self.word, "branch": self.branch}
        return {"kind": "features", "site": str(self.dictionary.site), **own}

    def save(self, path: Path) -> None:
        """Write features and numbers; the dictionary stays a file of its own."""
        told = {k: v for k, v in self.told.items() if k in FEATURES.about}
        FEATURES.write(path, {"by": torch.tensor(self.by)}, {**told, "dictionary": self.dictionary.digest})

    @classmethod
    def load(cls, path: Path, dictionary: Dictionary) -> Push:
        """Read what ``save`` wrote.

        Raises:
            ValueError: for another dictionary than the one whose features they are.
        """
        tensors, told = FEATURES.read(path)
        if told["dictionary"] != dictionary.digest:
            raise UsageError(f"{path} holds features of another dictionary than the one at {dictionary.site}")
        by = tuple(tensors["by"].tolist())
        return cls(dictionary, tuple(told["features"]), by, told["how"], told["word"], told["branch"])
