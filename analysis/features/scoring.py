"""Every feature twice: how well it tells a class, and how well it moves pictures towards it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Unpack

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from ...models.arguments import checked
from ...models.base import Model, Prompt
from ...models.drawn import Figure, figure
from ...models.errors import UsageError
from ...models.html import frame_table, panel
from ...models.progress import Progress
from ...models.run.sampling import Sampling, SamplingOptions
from ...models.store.provenance import provenance
from ...probes.dictionary import Dictionary
from ..directions.scoring import auc
from ..intervals import interval
from ..localisation.bootstrap import check_resampling, quantiles
from ..metrics import Metric, measure
from ..stored import Stored
from .bias_result import BiasFeatures, By
from .painting import Samples

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FeatureScores(Stored):
    """What features tell, and what they do.

    Args:
        data: ``moves`` [feature, sample], how much a metric rises from the feature off to the feature times
            ``1 + strength``; ``activity`` [feature, known], its mean strength in samples whose class is
            known; ``of_class`` [known]; ``chosen`` [feature], False for the control.
    """

    needed: ClassVar[frozenset[str]] = frozenset({"moves", "activity", "of_class", "chosen", "class"})

    def __repr__(self) -> str:
        frame = self.to_frame(n_resamples=100)
        told = [f"{int(f.feature)}: tells {f.tells:.2f}, moves {f.moves:.3g}" for f in frame.itertuples()][:3]
        return f"FeatureScores({self.data.attrs['class']}; {'; '.join(told)})"

    def _repr_html_(self) -> str:
        frame = self.to_frame(n_resamples=100)
        return panel(repr(self), frame_table(frame))

    @checked
    def to_frame(self, level: float = 0.95, n_resamples: int = 500, seed: int = 0) -> pd.DataFrame:
        """Return a table: feature, chosen, tells, moves, each with low and high.

        ``tells`` is an AUC, .5 is chance, with a bootstrap over samples; ``moves`` is in the metric's units,
        a mean over samples with a t interval. What tells need not move, and features are picked for what they
        tell: ask on seeds that they were not found with.
        """
        check_resampling(level, n_resamples)
        if seed < 0:
            raise UsageError(f"seed is {seed}; it is a whole number from 0 up")
        moves = interval(self.data["moves"], ["sample"], level)
        own = self.data["of_class"].values.astype(bool)
        rows = []
        for i, x in enumerate(self.data["activity"].values):
            positive, negative = x[own], x[~own]
            low, high = auc_interval(positive, negative, n_resamples, level, seed)
            rows.append((auc(positive, negative), low, high, *(float(moves[k][i]) for k in moves)))
        names = [f"{what}{of}" for what in ("tells", "moves") for of in ("", "_low", "_high")]
        frame = pd.DataFrame(rows, columns=names)
        frame.insert(0, "chosen", self.data["chosen"].values.astype(bool))
        frame.insert(0, "feature", self.data["feature"].values)
        return frame

    def plot(self) -> Figure:
        """Return a figure of what each feature moves against what it tells, ``measure_and_share``."""
        names = {"feature": "subject", "moves": "mean", "tells": "mean share"}
        for end in ("low", "high"):
            names |= {f"moves_{end}": end, f"tells_{end}": f"{end} share"}
        told = f"tells {self.data.attrs['class']} (AUC)"
        return figure("measure_and_share", self.to_frame().rename(columns=names), "moves", told)


def auc_interval(a: Array, b: Array, n: int, level: float, seed: int) -> tuple[float, float]:
    """Return bounds of the AUC of two groups of samples, each drawn anew n times."""
    source = np.random.default_rng(seed)
    found = [auc(source.choice(a, len(a)), source.choice(b, len(b))) for _ in range(n)]
    low, high = quantiles(np.array(found), level)
    return float(low), float(high)


@checked
def score_features(  # noqa: PLR0913  # one experiment, all its settings by name
    model: Model,
    dictionary: Dictionary,
    found: BiasFeatures,
    name: str,
    prompts: Sequence[str | Prompt] | None = None,
    *,
    seeds: Sequence[int],
    metric: Metric,
    features: int = 10,
    strength: float = 1.0,
    branch: str | None = "cond",
    batch: int = 16,
    progress: Progress | None = None,
    **settings: Unpack[SamplingOptions],
) -> FeatureScores:
    """Edit the features of a class one by one, beside as many others that are as active, and measure.

    Each is taken away, and made ``1 + strength`` times as strong, in all steps; ``moves`` is the difference.

    Args:
        model: an opened model.
        dictionary: the one that was asked.
        found: what its features tell.
        name: the class.
        prompts: one for each seed; leave out for an unconditional model.
        seeds: one for each sample; others than those of ``found``.
        metric: what is to rise; ``metrics.judge_log_odds(...)`` has no ends.
        features: how many of the class, and how many others.
        strength: how much stronger; above 0.
        branch: guidance branch; ``"edited"`` under ``Asymmetric``.
        batch: samples in one batch.
        progress: called with (done, total, what).
        **settings: how it is sampled, as in ``Sampling``.

    Raises:
        ValueError: for a strength that is none, a class without features, another dictionary.
        LookupError: for a class that there is not.
    """
    samples = replace(Samples.of(model, prompts, seeds, batch, settings), progress=progress)
    found.check(dictionary)
    chosen, others = (found.top(name, features, by) for by in _KINDS)
    if not chosen or not 0 < strength < float("inf"):
        raise UsageError(
            f"{name!r} has {len(chosen)} features and strength is {strength}; it is a number above 0"
        )
    every = [*chosen, *others]
    edits = [dictionary.edit(f, scale=by, branch=branch) for f in every for by in (0.0, 1 + strength)]
    runs = [run for edit in edits for run in samples.runs("an edit", [(edit,)] * len(seeds))]
    made = samples.swept([*samples.runs("plain", [()] * len(seeds)), *runs]).latents
    plain, *edited = made.split(len(seeds))
    values = [measure(metric, samples.outcome(x, plain)).double().cpu().numpy() for x in edited]
    moved = np.stack(values).reshape(len(every), 2, len(seeds))
    data = xr.Dataset(
        {
            "moves": (("feature", "sample"), moved[:, 1] - moved[:, 0]),
            "activity": (("feature", "known"), found.data["activity"].values[:, every].T),
            "of_class": (("known",), (found.data["label"].values == name).astype(float)),
            "chosen": (("feature",), np.array([1.0] * len(chosen) + [0.0] * len(others))),
        },
        {"feature": every},
    )
    about = provenance(model, **Sampling(**settings).described(model), method="score_features")
    told = {"class": name, "metric": getattr(metric, "__name__", repr(metric)), "strength": strength}
    return FeatureScores(data.assign_attrs({**about, **told}))


_KINDS: tuple[By, By] = ("attribution", "matched")
