"""What all offers stand on: texts, seeds for finding, and how a judge counts attributes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ...analysis.features.strength import calibrated_strength
from ...analysis.judging import fits
from ...models.errors import DenoscopeError, UsageError
from ...models.progress import Progress
from ...probes.intervene import Intervention
from ...probes.sweep.sweeping import SweepRun, sweep
from ..goal import Goal
from .change import Change

if TYPE_CHECKING:
    from ..case import Setup

APART = 1000
"""Directions, features and strengths are found with seeds from here on; changes are judged by the case's."""
WORDINGS = 6
"""So many wordings of the request show a difference, at most."""
MOST = 2.0
"""The largest strength that a balance tries."""
ROUNDS = 4
"""Of halving, or of counting and solving anew."""


@dataclass
class Offers:
    """Changes that analyses offer, and why some do not."""

    changes: list[Change] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)

    def attempt(self, analysis: str, what: str, make: Callable[[], Change | Sequence[Change]]) -> None:
        """Add what can be made; what our own errors refuse is told, with the reason."""
        try:
            made = make()
        except DenoscopeError as error:
            self.skipped.append((analysis, f"{what}: {' '.join(str(error).split())}"))
            return
        self.changes.extend([made] if isinstance(made, Change) else made)


@dataclass(frozen=True, eq=False)
class Ground:
    """A case as the offers see it."""

    setup: Setup
    progress: Progress

    @property
    def goal(self) -> Goal:
        """What a change is for."""
        return self.setup.goal

    @property
    def model(self) -> Any:
        """The opened model."""
        return self.setup.model

    @property
    def seeds(self) -> list[int]:
        """Seeds for finding, as many as the case has; others than those that judge."""
        return [APART + i for i in range(len(self.setup.seeds))]

    @property
    def settings(self) -> dict[str, Any]:
        """How runs are sampled."""
        return {k: v for k, v in self.setup.run.items() if k != "seeds"}

    @property
    def templates(self) -> list[str]:
        """Wordings that directions and features are found with: the edited one first."""
        words = self.setup.wording
        return list(dict.fromkeys([*words.efficacy, *words.templates]))[:WORDINGS]

    def pairs(self) -> tuple[list[str], list[str]]:
        """Texts with what is wanted, and the same without it."""
        goal = self.goal
        first, second = goal.asked if goal.kind == "balance" else (goal.meant, goal.about)
        return tuple([goal.written(t, w) for t in self.templates] for w in (first, second))  # type: ignore[return-value]

    @property
    def request(self) -> dict[str, str]:
        """What is said and what is to be meant, for closed forms."""
        return {self.goal.about: self.goal.meant}

    @property
    def kept(self) -> list[str]:
        """Texts that closed forms are solved to leave alone."""
        return ["", *self.setup.wording.keep]

    def rows(self, runs: int) -> int:
        """Rows of the denoiser in so many runs."""
        passes = 2 if self.setup.guidance > 1 else 1
        return runs * len(self.model.steps(self.setup.case.steps)) * passes

    def label(self, images: Tensor) -> list[str]:
        """Which of the goal's attributes each picture shows."""
        template, goal = self.setup.wording.efficacy[0], self.goal
        if self.setup.judge is None:
            raise UsageError("nobody can count attributes: no judge ships with this model; give one: --judge")
        texts = [goal.written(template, phrase) for phrase in goal.rivals(())]
        return [goal.values[i] for i in fits(self.setup.judge, images, texts).argmax(1).tolist()]

    def rarer(self) -> str:
        """The attribute that fewer of some pictures show, painted with the seeds for finding."""
        runs = [SweepRun(self.setup.case.prompt, seed) for seed in self.seeds]
        swept = sweep(self.model, runs, progress=self.progress, **self.settings)
        said = self.label(self.model.decode(swept.latents).detach())
        return min(self.goal.values, key=said.count)

    def balanced(
        self, towards: str, push: Callable[[float], tuple[Intervention, ...]]
    ) -> tuple[float, str, int]:
        """Return the strength at which two attributes come evenly, what is to say of it, and its rows."""
        n = len(self.seeds)
        try:
            found = calibrated_strength(
                self.model, lambda s: [push(s)] * n, self.label, (towards, 0.5),
                [self.setup.case.prompt] * n, seeds=self.seeds, most=MOST, rounds=ROUNDS,
                progress=self.progress, **self.settings,
            )  # fmt: skip
        except UsageError as error:
            if "does not lie between" not in str(error):
                raise
            return (
                MOST,
                f"no strength up to {MOST:g} makes shares even; this is the largest",
                self.rows(2 * n),
            )
        told = f"strength {found.strength:.2g} gave {found.share:.0%} on {n} other seeds"
        return found.strength, told, self.rows(len(found.tried) * n)
