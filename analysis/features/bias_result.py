"""What features tell of classes, and the edits that follow from it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias, get_args

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from ...models.arguments import checked
from ...models.drawn import Figure, figure
from ...models.errors import UsageError
from ...models.html import frame_table, panel
from ...models.run.context import CallContext, When
from ...models.site import Site
from ...probes.dictionary import Dictionary, DictionaryEdit
from ...probes.intervene import Intervention, Spec
from ..intervals import proportion
from ..stored import Stored
from ..word_experiments.counting import check_attributes
from .choosing import amounts, matched

By: TypeAlias = Literal["attribution", "contrast", "matched"]
How: TypeAlias = Literal["scale", "add", "set"]


@dataclass(frozen=True, eq=False)
class BiasFeatures(Stored):
    """Which features tell which class.

    Args:
        data: ``score`` [step, class, feature], integrated gradients of a class's probability, means over its
            samples; ``right`` and ``shuffled`` [step, sample], 1 where a classifier of other samples is
            right; ``activity`` [sample, feature], mean strength over steps and positions; ``contrast``
            [class, feature], that of a class less that of the others; ``level`` [feature], mean strength
            where it is on; ``gap`` [step, class, ...], mean activation of a class less that of the others.
    """

    needed: ClassVar[frozenset[str]] = frozenset(
        {"score", "right", "shuffled", "activity", "contrast", "level", "gap", "label", "site", "dictionary"}
    )

    def __repr__(self) -> str:
        s, right, shuffled = self.data.sizes, self.data["right"], self.data["shuffled"]
        best = int(right.mean("sample").values.argmax())
        told = f"right {float(right[best].mean()):.0%} (shuffled {float(shuffled[best].mean()):.0%})"
        step = int(self.data["step"][best])
        return (
            f"BiasFeatures({self.data.attrs['site']}: {' or '.join(self.classes)}, {s['sample']} samples, "
            f"{s['feature']} features; best at step {step}: {told})"
        )

    def _repr_html_(self) -> str:
        frame = self.accuracy()
        return panel(repr(self), frame_table(frame))

    def plot(self) -> Figure:
        """Return how often the class is told right, step by step, beside shuffled labels.

        ``analysis.plots.interval_lines``.
        """
        frame = self.accuracy()
        chance = frame.assign(line="shuffled labels", mean=frame["shuffled"], low=np.nan, high=np.nan)
        lines = pd.concat([frame.assign(line="told right"), chance])
        return figure("interval_lines", lines, "step", "share of samples")

    @property
    def classes(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(map(str, self.data["class"].values))

    @checked
    def accuracy(self, level: float = 0.95) -> pd.DataFrame:
        """Return how often the class is told right at each step, by classifiers of other samples.

        Columns step, mean, low, high (Wilson), ``shuffled``: the same for shuffled labels, which is what any
        labels would reach (Hewitt & Liang 2019), and ``largest``: the share of the largest class.
        """
        found = proportion(self.data["right"], ["sample"], level).to_dataframe().reset_index()
        frame = found[["step", "mean", "low", "high"]]
        shuffled = self.data["shuffled"].mean("sample").values
        largest = np.unique(self.data["label"].values, return_counts=True)[1].max()
        return frame.assign(shuffled=shuffled, largest=largest / self.data.sizes["sample"])

    @checked
    def top(self, name: str, features: int = 30, by: By = "attribution") -> list[int]:
        """Return the features of a class, most telling first; each feature is of one class at most.

        In a pair a score is positive, too, where the class has less of a feature than the other and that
        speaks for it. Such a feature is the other's: pushing it would lead the wrong way.

        Args:
            name: the class.
            features: how many, at most; those that speak against every class are none.
            by: ``"attribution"``: integrated gradients, summed over steps; ``"contrast"``: mean activity in
                the class less that in others; ``"matched"``: a control, for each of the first kind one that
                was not chosen and is as active.

        Raises:
            LookupError: for a class that there is not.
            ValueError: for no features, and another ``by``.
        """
        check_attributes([name], self.classes)
        if by not in get_args(By) or features < 1:
            raise UsageError(f"by is {by!r}, features {features}; by is one of {get_args(By)}, features 1 up")
        if by == "matched":
            taken = {c: self.top(c, features) for c in self.classes}
            return matched(taken, self.data["activity"].mean("sample").values)[name]
        scores = self._scores(by)
        own = self.classes.index(name)
        whose = self._scores("contrast") if self.data.attrs["baseline"] == "pair" else scores
        mine = (whose.argmax(0) == own) & (whose[own] > 0) & (scores[own] > 0)
        order = np.argsort(-scores[own], kind="stable")
        return [int(f) for f in order if mine[f]][:features]

    @checked
    def to_frame(self) -> pd.DataFrame:
        """Return a table: class, feature, score, contrast, auc, activity; each class's best first.

        ``auc``: how often a sample of the class has more of the feature than one of another; .5 is chance.
        """
        frames = []
        for i, name in enumerate(self.classes):
            scores = self._scores("attribution")[i]
            frame = pd.DataFrame({
                "class": name,
                "feature": np.arange(len(scores)),
                "score": scores,
                "contrast": self.data["contrast"].values[i],
                "auc": self.aucs(name),
                "activity": self.data["activity"].mean("sample").values,
            })  # fmt: skip
            frames.append(frame.sort_values("score", ascending=False, kind="stable"))
        return pd.concat(frames, ignore_index=True)

    @checked
    def aucs(self, name: str) -> NDArray[np.float64]:
        """Return for each feature how often a sample of a class has more of it than one of another [feature].

        Raises:
            LookupError: for a class that there is not.
        """
        from scipy.stats import rankdata  # noqa: PLC0415  # slow to import

        check_attributes([name], self.classes)
        own = self.data["label"].values == name
        n, m = int(own.sum()), int((~own).sum())
        ranks = rankdata(self.data["activity"].values, axis=0)
        found: NDArray[np.float64] = (ranks[own].sum(0) - n * (n + 1) / 2) / (n * m)
        return found

    @checked
    def towards(  # noqa: PLR0913  # one edit, all its settings by name
        self,
        dictionary: Dictionary,
        name: str,
        strength: float = 1.0,
        *,
        features: int = 30,
        by: By = "attribution",
        how: How = "scale",
        steps: Collection[int] | None = None,
        branch: str | None = "cond",
    ) -> DictionaryEdit:
        """Return the edit that pushes a sample towards a class, and away from the others.

        Args:
            dictionary: the one that was asked.
            name: the class.
            strength: 0 changes nothing (but with "set"). "scale": the class's features times ``1 +
                strength``, those of the others times ``1 - strength``, never below 0. "add": ``strength``
                times a feature's usual level is added to the class's features. "set": that is what they are,
                and the others' are 0.
            features: of each class.
            by: how they are chosen, as in ``top``.
            how: see above.
            steps: at which it acts; None is all.
            branch: guidance branch; ``"edited"`` under ``Asymmetric``; None is all.

        Raises:
            LookupError: for a class that there is not.
            ValueError: for another dictionary, a strength that is not finite, a class without features.
        """
        self.check(dictionary)
        own = self.top(name, features, by)
        others = [f for c in self.classes if c != name for f in self.top(c, features, by)]
        if not np.isfinite(strength):
            raise UsageError(f"strength is {strength}; give a finite number")
        if not own:
            raise UsageError(f"{_without(name, by)} (the dictionary has {dictionary.width} features)")
        chosen, by_each = amounts(own, others, float(strength), how, self.data["level"].values)
        return dictionary.edit(chosen, **{how: by_each}, steps=steps, branch=branch)

    @checked
    def mean_difference(
        self,
        name: str,
        strength: float = 1.0,
        *,
        steps: Collection[int] | None = None,
        branch: str | None = "cond",
    ) -> Intervention:
        """Return what adds the class's mean activation less that of the others, step by step: a rival.

        Args:
            name: the class.
            strength: 1 moves the mean of the others onto that of the class.
            steps: at which it acts; None is all that were looked at.
            branch: as in ``towards``.

        Raises:
            LookupError: for a class that there is not.
            ValueError: for steps that were not looked at, and a strength that is not finite.
        """
        check_attributes([name], self.classes)
        known = [int(s) for s in self.data["step"].values]
        acting = known if steps is None else sorted(steps)
        if not set(acting) <= set(known) or not np.isfinite(strength) or not acting:
            raise UsageError(f"steps are {acting}, strength {strength}; steps {known} were looked at")
        gap = torch.from_numpy(self.data["gap"].sel({"class": name}).values) * strength

        def add(x: torch.Tensor, context: CallContext) -> torch.Tensor | None:
            return None if strength == 0 else x + gap[known.index(context.index or 0)].to(x)

        spec = Spec("mean difference", {"gap": gap, "steps": known})
        return Intervention(Site(self.data.attrs["site"]), add, When(acting, branch), spec)

    def _scores(self, by: str) -> NDArray[np.float64]:
        found: NDArray[np.float64] = (
            self.data["score"].sum("step") if by == "attribution" else self.data["contrast"]
        ).values
        return found

    @checked
    def check(self, dictionary: Dictionary) -> None:
        """Raise ValueError for a dictionary that is not the one that was asked."""
        if dictionary.digest != self.data.attrs["dictionary"]:
            raise UsageError(
                f"{dictionary} is not the dictionary whose features were asked at {self.data.attrs['site']}; "
                "give that one, or ask this one by bias_features"
            )


def _without(name: str, by: By) -> str:
    """Why a class has no features."""
    if by == "matched":
        return "a control needs features that were not chosen, and none is left; ask for fewer features"
    return f"no feature speaks for {name!r} by {by}; give more seeds, or a wider dictionary"
