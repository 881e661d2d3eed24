"""Did an edit work, and what else did it move? The same prompts before and after it, under the same seeds.

Four measures, as is the custom since ROME (Meng et al. 2022) and ReFACT (Arad et al. 2024), each a proportion
of pictures:

- efficacy: the edited wording shows the target (and no longer the source);
- generality: so do other wordings of the same thing;
- specificity: other things still show themselves;
- quality: how well pictures fit the text they should now show.

Beside *before* and *after* stands the *oracle*: the unedited model, given a prompt that says outright
what the edit should make it show. No edit can be expected to do better.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from ...models.arguments import check_fields, checked
from ...models.base import Model
from ...models.drawn import Figure, figure
from ...models.errors import UsageError
from ...models.html import frame_table, panel, pictures
from ...models.judges.choosing import Function, TextJudge, about_judge, any_judge
from ...models.progress import Progress, showing
from ...models.run.sampling import Sampling
from ...models.store.fingerprint import fingerprint
from ...models.store.provenance import provenance
from ..intervals import interval, proportion
from ..judging import check_sees, fits
from .appearance import colour_difference
from .keeping import KeptJudge, check_changed, evaluating
from .painting import Painter
from .prompts import KINDS, EvaluationPrompt, check_known

STATES = ("before", "after", "oracle")
DIM = "evaluation_prompt"
"""The dimension of the prompts that an edit is tried on; stores of older versions call it ``question``."""


@dataclass(frozen=True, eq=False)
class EditEvaluation:
    """What an edit did.

    Args:
        data: ``fit`` [state, evaluation_prompt, seed, candidate]: how well each picture fits the prompt's
            template with each candidate word; ``moved`` [evaluation_prompt, seed]: mean absolute change of a
            pixel (0..1) by the edit; ``colour``, of the same dims: how different the picture looks
            (``appearance.colour_difference``). Coordinates of an evaluation prompt: its kind, prompt, word
            and target.
        images: for each state (before, after, oracle) the pictures [prompt, seed, 3, height, width].
    """

    data: xr.Dataset
    images: Mapping[str, Float[Tensor, "prompt seed 3 height width"]]

    def __post_init__(self) -> None:
        check_fields(self)
        if "question" in self.data.dims:
            object.__setattr__(self, "data", self.data.rename(question=DIM))

    def __repr__(self) -> str:
        after = self.summary().query("state == 'after' and measure == 'shown'")
        shown = ", ".join(
            f"{kind} {mean:.0%}" for kind, mean in zip(after["kind"], after["mean"], strict=True)
        )
        prompts, seeds = (self.data.sizes[d] for d in (DIM, "seed"))
        return f"EditEvaluation({shown}; {prompts} prompts x {seeds} seeds)"

    def _repr_html_(self) -> str:
        frame, prompts = self.summary(), [str(p) for p in self.data["prompt"].values]
        shown = [f"<div>{state}</div>{pictures(self.images[state][:, 0], prompts)}" for state in STATES]
        return panel(repr(self), *shown, frame_table(frame))

    @checked
    def plot(self, measure: str = "shown") -> Figure:
        """Return bars of one measure with intervals, ``analysis.plots.effect_bars``.

        Args:
            measure: shown, gone, fit or moved.

        Raises:
            ValueError: for another measure.
        """
        return figure("effect_bars", self, measure)

    def measures(self) -> xr.Dataset:
        """Return one number for each picture.

        ``shown``: 1 if, among all candidates, the picture fits the target best. ``gone``: 1 if it does not
        fit best the word that was said (prompts with the edited word only). ``fit``: how well it fits the
        target. ``moved``: how far its pixels moved; ``colour``: how different it looks, above 10 at a glance
        (both after the edit only). The first three are NaN where the judge's opinion is.
        """
        fit = self.data["fit"]
        known = fit.notnull().all("candidate")
        seen = fit["candidate"].values[fit.fillna(0).argmax("candidate").values]
        seen = xr.DataArray(seen, dims=("state", DIM, "seed"))
        target, word = self.data["target"], self.data["word"]
        gone = (seen != word).astype(float).where((target != word) & known)
        shown = (seen == target).astype(float).where(known)
        own = fit.sel(candidate=target).drop_vars("candidate")
        changes = {
            name: self.data[name].expand_dims(state=["after"]).reindex(state=list(STATES))
            for name in ("moved", "colour")
            if name in self.data  # stores of older versions have no colour
        }
        return xr.Dataset({"shown": shown, "gone": gone, "fit": own, **changes})

    def to_frame(self) -> pd.DataFrame:
        """Return a table with one row for each picture."""
        frame = self.measures().to_dataframe().reset_index()
        columns = ("kind", "prompt", "target", "seed", "state", "shown", "gone", "fit", "moved", "colour")
        return frame[[c for c in columns if c in frame]]

    @checked
    def summary(self, level: float = 0.95) -> pd.DataFrame:
        """Return a table: for each kind, measure and state the mean, with a confidence interval.

        Prompts and seeds are random samples; with one of each there is no interval (NaN). Those of
        proportions (shown, gone) are Wilson's; see ``denoscope.analysis.intervals``.
        """
        rows, measures = [], self.measures()
        for kind in [k for k in KINDS if k in measures["kind"].values]:
            some = measures.isel({DIM: (measures["kind"] == kind).values})
            for name, values in some.data_vars.items():
                for state in STATES:
                    one = values.sel(state=state)
                    if bool(one.notnull().all()):
                        kind_of = proportion if name in ("shown", "gone") else interval
                        found = kind_of(one, [DIM, "seed"], level)
                        rows.append((kind, name, state, *(float(found[k]) for k in ("mean", "low", "high"))))
        return pd.DataFrame(rows, columns=["kind", "measure", "state", "mean", "low", "high"])


@checked
def evaluate_edit(
    model: Model,
    change: Callable[[Model], AbstractContextManager[Any]],
    prompts: Sequence[EvaluationPrompt],
    *,
    judge: TextJudge | Function,
    seeds: Sequence[int],
    steps: int = 20,
    guidance: float | None = None,
    batch: int = 16,
    store: str | Path | None = None,
    progress: Progress | None = None,
) -> EditEvaluation:
    """Try every prompt with every seed, before and after a change of the model.

    Args:
        model: an opened model, as it is before.
        change: makes the change for the length of a with block: ``edit.applied``.
        prompts: what to try; ``evaluation_prompts`` makes them.
        judge: says how well pictures fit texts, [picture, text]: the embedded one, ``clip_judge(...)``,
            ``classifier_judge(...)``, or a function of pictures and texts.
        seeds: starting noises, the same for every prompt and state.
        steps: number of steps.
        guidance: guidance scale; None is the model's default.
        batch: samples in one batch.
        store: a folder; runs, pictures and answers that are in it are not made again, so a call that was
            stopped goes on (docs/studies.md).
        progress: called with (done, total, what); without it a bar comes by itself.
            Identical runs are made once.

    Raises:
        ValueError: for no prompts, repeated prompts or seeds, and runs that cannot be made; for a judge that
            returns another shape, or the same for pictures that differ.
        LookupError: for a word or target that a tokenizer loses or does not know.
        RuntimeError: for a store of another model or other settings, or that another process writes.

    >>> from denoscope.analysis.edit_evaluation.prompts import evaluation_prompts
    >>> from denoscope.editing.methods.quickfix import quickfix
    >>> from denoscope.models.judges.embedded import load_judge
    >>> model = load("emoji")
    >>> edit = quickfix(model, {"firefighter": "cook"})
    >>> tried = evaluation_prompts({"firefighter": "cook"}, ["a noto emoji of a woman {}"])
    >>> found = evaluate_edit(model, edit.applied, tried, judge=load_judge("emoji"), seeds=[0], steps=4)
    >>> found.images["after"].shape
    torch.Size([1, 1, 3, 64, 64])
    """
    for name, values in (("prompts", prompts), ("seeds", seeds)):
        if not values or len(set(values)) != len(values):
            raise UsageError(f"{name} is {list(values)!r}; give at least one, each once")
    check_known(model, prompts)
    how = Sampling(steps=steps, guidance=guidance)
    texts = list(dict.fromkeys(p.prompt for p in prompts))
    wanted = [p.template.replace("{}", p.target) for p in prompts]
    more = [text for text in dict.fromkeys(wanted) if text not in texts]
    n_pictures = [len(some) * len(seeds) for some in (texts, more, texts)]
    told = described(change)
    with (
        showing(progress) as show,
        evaluating(store, model, how, batch, prompts, judge, seeds, told, n_pictures) as study,
    ):
        painter = Painter(model, seeds, steps, guidance, batch, show, sum(n_pictures), study)
        weights = fingerprint(model) if study else None
        # texts alone, both times: the same batches, so that what is not touched is equal to the bit
        before = painter(texts)
        oracle = {**before, **painter(more)}
        with change(model):
            check_changed(study, model, weights, told)
            after = painter(texts)
        images = {
            "before": torch.stack([before[p.prompt] for p in prompts]),
            "after": torch.stack([after[p.prompt] for p in prompts]),
            "oracle": torch.stack([oracle[text] for text in wanted]),
        }
        about = provenance(model, **how.described(model), change=told, judge=about_judge(any_judge(judge)))
        return judged(images, prompts, KeptJudge(judge, study) if study else judge, seeds, about)


def described(change: Callable[..., Any]) -> dict[str, str]:
    """Say which change it is: an edit's hash where it has one."""
    owner = getattr(change, "__self__", change)
    id_ = {"id": str(owner.id)} if hasattr(owner, "id") else {}
    return {"what": repr(owner) if id_ else getattr(owner, "__qualname__", type(owner).__name__), **id_}


@checked
def judged(
    images: Mapping[str, Float[Tensor, "prompt seed 3 height width"]],
    prompts: Sequence[EvaluationPrompt],
    judge: TextJudge | Function,
    seeds: Sequence[int],
    about: Mapping[str, Any] | None = None,
) -> EditEvaluation:
    """Evaluate an edit on pictures that are there already.

    Args:
        images: for each state, before, after and oracle, [prompt, seed, 3, height, width] in 0..1.
        prompts: what was tried.
        judge: says how well pictures fit texts, [picture, text].
        seeds: the starting noises.
        about: provenance, kept with the data.

    Raises:
        ValueError: for a judge that returns another shape, or the same for pictures that differ.
    """
    images = {state: x.float() for state, x in images.items()}  # autocast leaves them in bfloat16
    candidates = list(dict.fromkeys(word for p in prompts for word in (p.word, p.target)))
    texts = [[p.template.replace("{}", c) for c in candidates] for p in prompts]
    fit = torch.stack(
        [torch.stack([fits(judge, x, t) for x, t in zip(images[s], texts, strict=True)]) for s in STATES]
    )
    check_sees(judge, fit, {s: images[s] for s in STATES})
    moved = (images["after"] - images["before"]).abs().mean((-3, -2, -1))
    pairs = zip(images["before"], images["after"], strict=True)
    colour = torch.stack([colour_difference(before, after) for before, after in pairs])
    data = xr.Dataset(
        {
            "fit": (("state", DIM, "seed", "candidate"), fit.numpy()),
            "moved": ((DIM, "seed"), moved.numpy()),
            "colour": ((DIM, "seed"), colour.numpy()),
        },
        coords={
            "state": list(STATES),
            DIM: range(len(prompts)),
            "seed": list(seeds),
            "candidate": candidates,
            **{c: (DIM, [getattr(p, c) for p in prompts]) for c in ("kind", "prompt", "word", "target")},
        },
        attrs=dict(about or {}),
    )
    return EditEvaluation(data, images)
