"""A place whose inner truth is known, because it was put there: what to ask of it, and the answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Self

from torch import Tensor

from ...models.arguments import check_fields, checked
from ...models.base import Model
from ...models.errors import UsageError
from ...models.places.account import Account
from ...models.run.levels import Step
from ...models.site import Site
from ...models.store.fingerprint import fingerprint
from ...probes.intervene import Intervention, intervening

GUIDANCE = 4.0
STEPS = 10
"""How the places were tried out when they were made; they act in runs of any length."""


@dataclass(frozen=True)
class Truth:
    """Where something was planted.

    Args:
        sites: each of them; one is enough to be right.
        token: which tokens, as ``trace_text(tokens="roles")`` calls them; None where there are none.
        snr: from which log signal-to-noise ratio on it acts, and below which it no longer does; None is all.
    """

    sites: tuple[Site, ...]
    token: str | None = None
    snr: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "sites", tuple(Site(str(s)) for s in self.sites))
        check_fields(self)

    def acts_at(self, step: Step | None) -> bool:
        """Whether a step lies in the planted window."""
        return self.snr is None or (step is not None and self.snr[0] <= step.log_snr < self.snr[1])

    def steps(self, steps: Sequence[Step]) -> tuple[int, ...]:
        """The steps of a run that lie in the planted window, ``truth.steps(model.steps(20))``."""
        return tuple(s.index for s in steps if self.acts_at(s))


@dataclass(frozen=True)
class Question:
    """What to ask of a planted place, and what is true.

    Args:
        prompt: in which the plant acts.
        subject: the words of it that it listens to.
        swap: other words, of as many tokens, to which it does not.
        attribute: of the picture, which the embedded judge reads: "concept" or "style".
        label: what it shows if the plant acts.
        truth: where it was planted.
        clean: probability of the label for the prompt, when the place was tried out.
        corrupted: the same for the prompt with the swapped words.
    """

    prompt: str
    subject: str
    swap: str
    attribute: str
    label: str
    truth: Truth
    clean: float
    corrupted: float

    @property
    def other(self) -> str:
        """The prompt with the swapped words."""
        return self.prompt.replace(self.subject, self.swap)


@dataclass(frozen=True, eq=False)
class Planted(ABC):
    """One planted place. ``with place.applied(model): ...`` puts it into the model; each kind is a subclass.

    Args:
        model: name of the embedded model that it is for.
        base: fingerprint of its weights.
        questions: what to ask.
    """

    model: str
    base: str
    questions: tuple[Question, ...]

    @abstractmethod
    def acting(self, model: Model) -> AbstractContextManager[None]:
        """The plant itself, as a context manager, on weights that were looked at."""

    @abstractmethod
    def stored(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        """What a file holds of it: arrays in half precision, and JSON."""

    @classmethod
    @abstractmethod
    def restored(
        cls,
        model: str,
        base: str,
        questions: tuple[Question, ...],
        tensors: Mapping[str, Tensor],
        how: Mapping[str, Any],
    ) -> Self:
        """The place of which a file holds this."""

    @checked
    @contextmanager
    def applied(self, model: Model) -> Iterator[None]:
        """Plant it for the length of a with block; afterwards the model is as it was, error or not.

        Runs, sweeps, traces and analyses inside of the block all meet it.

        Raises:
            ValueError: for other weights than those it was made for, edited ones among them.
        """
        if fingerprint(model) != self.base:
            raise UsageError(
                f"this place was planted in {self.model!r}, and the weights of {model.name!r} are different "
                f"(edited, or others): open denoscope.load({self.model!r}), or plant anew by "
                "python -m denoscope.editing.planting"
            )
        with self.acting(model):
            yield


@contextmanager
def lasting(model: Model, interventions: Sequence[Intervention]) -> Iterator[None]:
    """Let interventions act in every run of a block, though some runs may have nothing for them to do."""
    with intervening(model, *interventions, account=Account(interventions)):
        yield


def question_of(told: Mapping[str, Any]) -> Question:
    """A question from its JSON."""
    truth = told["truth"]
    where = Truth(tuple(map(Site, truth["sites"])), truth["token"], truth["snr"] and tuple(truth["snr"]))
    return Question(**{**told, "truth": where})


def told_of(question: Question) -> dict[str, Any]:
    """A question as JSON."""
    truth = question.truth
    where = {
        "sites": [str(s) for s in truth.sites],
        "token": truth.token,
        "snr": None if truth.snr is None else list(truth.snr),
    }
    return {**vars(question), "truth": where}
