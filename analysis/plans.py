"""What evaluations and searches for features will take, counted before they run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Unpack

from ..models.arguments import checked
from ..models.base import Model, Prompt
from ..models.errors import UsageError
from ..models.guidance.cfg import CFG
from ..models.guidance.value import Guidance
from ..models.run.context import When
from ..models.run.sampling import Sampling, SamplingOptions
from ..models.sites import site_shapes
from ..probes.dictionary import Dictionary
from ..probes.sweep.keeping import on_disk
from ..probes.sweep.partition import SweepRun, partition
from .edit_evaluation.prompts import EvaluationPrompt
from .features.gathering import Question


@dataclass(frozen=True)
class StudyPlan:
    """What long work will take.

    Args:
        what: the function.
        units: what is done one by one: prompts x seeds of a causal tracing, else batches.
        runs: different sampling runs, the clean ones included.
        rows: denoiser rows, without what a store holds already.
        exact: whether it is all of them to the row; else at most so many: the guidance leaves some out, or
            there are no weights to say which texts read the same.
        reference_rows: what the published scheme takes for the same scores; None where there is none.
        samples: the most that one batch holds.
        kept: bytes of activations that are kept at a time, in main memory.
        files: how many a store makes of it, beside its database; 0 too of what no store keeps.
        stored: bytes of latents that a store keeps, and of pictures of an evaluation; keys, hashes and
            scores come to some more.
        pictures: how many are decoded; of a metric of your own all, as nobody knows whether it looks.
        single: of the rows, those that are computed one at a time: gradients.
        backward: passes back through the network, of one row each.
    """

    what: str
    units: int
    runs: int
    rows: int
    exact: bool
    reference_rows: int | None
    samples: int
    kept: int
    files: int = 0
    stored: int = 0
    pictures: int = 0
    single: int = 0
    backward: int = 0

    @checked
    def seconds(self, pace: float, *, single: float | None = None, picture: float = 0.0) -> float:
        """Return how long it takes; judges and text encoders are not counted.

        Args:
            pace: rows a second, as ``rows_per_second`` measures it.
            single: the same of rows that come one at a time (``samples=1, guidance=1.0``), where a pass back
                counts as two; None is ``pace``.
            picture: seconds to decode one, as ``seconds_per_picture`` measures it; 0 leaves it out.

        Raises:
            ValueError: for a pace that is not above 0, and a time below 0.
        """
        for name, value in (("pace", pace), ("single", pace if single is None else single)):
            if not value > 0:
                raise UsageError(f"{name} is {value}; it is rows a second, above 0")
        if not picture >= 0:
            raise UsageError(f"picture is {picture}; it is seconds, 0 or more")
        alone = (self.single + 2 * self.backward) / (single or pace)
        return (self.rows - self.single) / pace + alone + self.pictures * picture


def evaluation_plan(
    model: Model,
    change: Callable[..., Any] | None,
    prompts: Sequence[EvaluationPrompt],
    *,
    judge: Any = None,  # noqa: ARG001  # looks at pictures, which is not counted
    seeds: Sequence[int],
    steps: int = 20,
    guidance: float | None = None,
    batch: int = 16,
) -> StudyPlan:
    """Count what ``evaluate_edit`` will take: before, after and oracle."""
    del change  # whatever it is, the same runs are made
    how = Sampling(steps=steps, guidance=guidance).guided(model)
    branches, n_steps = len(model.branch_names(how)), len(model.steps(steps))
    texts = list(dict.fromkeys(p.prompt for p in prompts))
    meant = dict.fromkeys(p.template.replace("{}", p.target) for p in prompts)
    more = [text for text in meant if text not in texts]
    runs = rows = most = units = files = stored = 0
    for some in (texts, more, texts):
        swept = [SweepRun(text, seed) for text in some for seed in seeds]
        batches, _ = partition(swept, batch, model.branch_names(how)) if swept else ([], [])
        runs, units = runs + len(swept), units + len(batches)
        rows += sum(one.rows(branches, n_steps) for one in batches)
        most = max([most, *(one.samples for one in batches)])
        made, kept = on_disk(model, batches, pictures=True)
        files, stored = files + made, stored + kept
    exact = every_branch(how)
    return StudyPlan("evaluate_edit", units, runs, rows, exact, None, most, 0, files, stored, pictures=runs)


def features_plan(
    model: Model,
    dictionary: Dictionary,
    classes: Sequence[str] | Mapping[str, Sequence[str | Prompt]],
    prompts: Sequence[str | Prompt] | None = None,
    *,
    seeds: Sequence[int],
    label: Any = None,
    when: When = When(),
    batch: int = 16,
    **settings: Unpack[SamplingOptions],
) -> StudyPlan:
    """Count what ``bias_features`` will take."""
    dictionary.check(model)
    how = Sampling(**settings)
    model = model.sized(how.size)
    samples = len(Question.of(classes, prompts, seeds, label).prompts)
    n_kept = len([step for step in model.steps(how) if step in when])
    shapes = site_shapes(model)
    kept = sum(prod(shapes[site]) for site in dictionary.channels.sites) * 4 * n_kept * samples
    return samples_plan(model, samples, how, batch, kept)


def samples_plan(model: Model, samples: int, how: Sampling, batch: int, kept: int) -> StudyPlan:
    """Count what the samples of ``bias_features`` take, batch by batch."""
    guidance = how.guided(model)
    rows = samples * len(model.branch_names(guidance)) * len(model.steps(how))
    units = -(-samples // batch)
    return StudyPlan(
        "bias_features", units, samples, rows, every_branch(guidance), None, min(batch, samples), kept
    )


def every_branch(guidance: Guidance) -> bool:
    """Whether all branches are computed at every step."""
    if isinstance(guidance, CFG):
        return guidance.steps is None
    return type(guidance).active is Guidance.active
