"""An evaluation as a study in a store: what it is, and a judge whose answers are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from ...models.base import Model
from ...models.errors import UsageError
from ...models.judges.choosing import Function, TextJudge, about_judge, any_judge, judge_spec
from ...models.run.sampling import Sampling
from ...models.store.fingerprint import fingerprint, tensor_hash
from ...models.store.identity import identity
from ...models.store.study import Study, studying
from ..judging import fits
from .prompts import EvaluationPrompt

Applied = Callable[[Model], AbstractContextManager[Any]]


@dataclass(frozen=True, eq=False)
class KeptJudge:
    """A judge that is asked once for each batch of pictures and texts."""

    judge: TextJudge | Function
    study: Study

    @cached_property
    def spec(self) -> Any:
        """What it is, taken once: an evaluation does not change its judge."""
        return judge_spec(self.judge)

    @property
    def about(self) -> dict[str, str]:
        """What provenance says of the judge itself."""
        return about_judge(any_judge(self.judge))

    def similarity(self, images: Tensor, texts: Sequence[str], /) -> Tensor:
        """How well every picture fits every text, [sample, text]."""
        asked = {"what": "fit", "judge": self.spec, "texts": list(texts)}
        unit = self.study.inside.make(
            {**asked, "pictures": tensor_hash(images)},
            lambda: ({"fit": fits(self.judge, images, texts)}, 0),
            {"texts": list(texts)},
        )
        return unit.tensors["fit"]


@contextmanager
def evaluating(  # noqa: PLR0917  # what evaluate_edit is given
    store: str | Path | None,
    model: Model,
    how: Sampling,
    batch: int,
    prompts: Sequence[EvaluationPrompt],
    judge: TextJudge | Function,
    seeds: Sequence[int],
    change: Mapping[str, str],
    n_pictures: Sequence[int],
) -> Iterator[Study | None]:
    """Open the store of an evaluation.

    Args:
        store: its folder, or None.
        model: as it is before the change.
        how: settings of the runs.
        batch: samples in one batch.
        prompts: what is tried.
        judge: says what pictures show.
        seeds: starting noises.
        change: which one.
        n_pictures: how many are painted together.
    """
    if store is None:
        yield None
        return
    base = identity(model, how, batch)
    parts = {"prompts": [asdict(p) for p in prompts], "judge": judge_spec(judge), "seeds": list(seeds)}
    about = {"change": dict(change), "prompts": [p.prompt for p in prompts], "seeds": list(seeds)}
    units = sum(-(-n // batch) for n in n_pictures)
    parts["change"] = dict(change)
    with studying(store, base, "evaluate_edit", parts, units=units, about=about) as study:
        yield study


def check_changed(study: Study | None, model: Model, before: str | None, change: Mapping[str, str]) -> None:
    """Raise ValueError for a change that a store does not see: it acts on something else than weights."""
    if study is not None and "id" not in change and fingerprint(model) == before:
        raise UsageError(
            f"the change {change['what']} leaves the weights as they are, so a store cannot tell what it "
            "does; leave out store, or give an Edit"
        )
