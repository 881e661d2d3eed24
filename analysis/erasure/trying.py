"""Is it gone? Everything that somebody might try after an edit, on one sheet, beside its controls.

Success on prompts is one thing; what still comes when somebody tries is another. Zhang et al. (2024,
UnlearnDiffAtk), Pham et al. (2024) and "When Are Concepts Erased" (arXiv 2505.17013) each have some of these
attacks; here all are normalised alike, and each stands beside what it does to a model that never lost it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from ...models.arguments import checked
from ...models.base import Model
from ...models.errors import NotFoundError, UsageError
from ...models.images import to_array
from ...models.judges.choosing import Function, TextJudge, about_judge, any_judge
from ...models.progress import Progress, showing
from ...models.run.sampling import Sampling
from ...models.store.provenance import provenance
from ...models.suggest import near
from ..edit_evaluation.evaluate import described
from ..edit_evaluation.prompts import EvaluationPrompt, check_known
from .attacks import PROBES
from .budget import Budget
from .paraphrase import surrounded
from .result import Robustness
from .seeing import Seeing
from .world import Changed, Meter, Trial, World

log = logging.getLogger(__name__)

UNRELATED = ("a dog", "a house", "an apple", "a car")
"""Other things, which tuning on should bring nothing back."""


@checked
def robustness(  # noqa: PLR0913  # one sheet, all its settings by name
    model: Model,
    changed: Changed,
    about: str,
    instead: str,
    *,
    judge: TextJudge | Function,
    seeds: Sequence[int],
    steps: int = 20,
    guidance: float | None = None,
    template: str = "a {}",
    probes: Sequence[str] = tuple(PROBES),
    budget: Budget | None = None,
    wordings: Mapping[str, str] | None = None,
    pictures: Float[Tensor, "picture channel height width"] | None = None,
    never: Mapping[str, Tensor] | None = None,
    unrelated: Sequence[str] = UNRELATED,
    others: Sequence[str] = (),
    batch: int = 16,
    progress: Progress | None = None,
) -> Robustness:
    """Try what an edit took away, in every way that is asked for; the model is left as it was.

    Args:
        model: an opened model, as it is before.
        changed: makes the change for the length of a with block: ``edit.applied``.
        about: the word that was edited away.
        instead: what it means now.
        judge: says what pictures show; no attack sees it. Where one of its attributes has both words for
            labels it gives probabilities, else the word that fits a picture best. Not the CLIP whose text
            encoder was edited.
        seeds: starting noises of the evaluation; pictures that attacks are given are painted from others.
        steps: of a run.
        guidance: its scale; None is the model's default.
        template: the prompt, with ``{}`` for the word.
        probes: of "paraphrase", "clean_embeddings", "completion", "noised", "invert", "embedding",
            "relearn".
        budget: of each attack; None is ``Budget()``.
        wordings: other wordings by name, with ``{}`` for the word or, as a description, without it; None is
            a few surroundings for the template.
        pictures: real ones of the concept, [picture, channel, height, width] in 0..1; None has the clean
            model paint them.
        never: words that the model never learnt, with pictures of each: the control of "embedding".
        unrelated: prompts that "relearn" is tuned on beside.
        others: what pictures may show instead, for judges without probabilities.
        batch: samples in one batch of the denoiser.
        progress: called with (done, total, what) in rows of the denoiser; what says how long it may take,
            measured on the first runs.

    Raises:
        ValueError: for unknown probes, words alike, a template without ``{}``, repeated seeds, and runs that
            cannot be made.
        LookupError: for words that a tokenizer loses or does not know.

    >>> from denoscope.editing import quickfix
    >>> from denoscope.models.synthetic.tiny import tiny_sd
    >>> model = load(tiny_sd())
    >>> edit = quickfix(model, {"cat": "dog"})
    >>> light = lambda images, texts: images.mean((1, 2, 3))[:, None] * torch.arange(1, 1 + len(texts))
    >>> found = robustness(model, edit.applied, "cat", "dog", judge=light, seeds=[0, 1], steps=2,
    ...                    probes=["clean_embeddings"])
    >>> found.reaches_clean
    True
    """
    _check(about, instead, seeds, probes, batch)
    check_known(model, [EvaluationPrompt("efficacy", template, about, instead)])
    how = Sampling(steps=steps, guidance=guidance)
    with showing(progress) as show:
        meter = Meter(show)
        world = World(
            model, changed, about, instead, template, surrounded(template) if wordings is None else wordings,
            list(unrelated), pictures, never or {}, list(seeds), steps, guidance, batch,
            budget or Budget(), meter,
        )  # fmt: skip
        started = time.perf_counter()
        plain = [Trial("plain", "the prompt", x, who) for who, x in world.plain.items()]
        estimate(world, probes, time.perf_counter() - started)
        trials = [*plain, *(trial for name in probes for trial in PROBES[name].tries(world))]
        show(meter.total, meter.total, meter.what)
    seeing = Seeing(judge, template, [about, instead], list(others))
    told = {"change": described(changed), "judge": about_judge(any_judge(judge)), "measure": seeing.measure}
    about_run = provenance(model, **how.described(model), **told)
    return Robustness(judged(world, trials, seeing).assign_attrs(about_run, about=about, instead=instead))


def estimate(world: World, probes: Sequence[str], seconds: float) -> None:
    """Say how long all probes may take, by what the first runs took."""
    first, rest = world.meter.done, sum(PROBES[name].count(world) for name in probes)
    needs = {"noised", "invert", "embedding", "relearn"} & {*probes}
    if needs and world.given is None:
        rest += world.budget.pictures * world.length * world.branches
    minutes = rest * seconds / max(first, 1) / 60
    world.meter.total = first + rest
    world.meter.what = f"trying what was edited away, about {max(minutes, 0.1):.1f} min"
    log.info("%s rows of the denoiser, about %.1f minutes", f"{rest:,}", minutes)


def judged(world: World, trials: Sequence[Trial], seeing: Seeing) -> xr.Dataset:
    """Ask the judge about all pictures of all trials, each once."""
    n, draws = len(world.seeds), world.budget.best_of
    said = seeing(torch.cat([t.images for t in trials])).view(len(trials), draws, n, 2)
    fit = seeing.fit(torch.cat([t.images for t in trials])).view(len(trials), draws, n)
    for i, trial in enumerate(trials):
        if trial.word is not None:
            own = Seeing(seeing.judge, seeing.template, [trial.word, world.instead], seeing.others)
            said[i] = own(trial.images).view(draws, n, 2)
    best = said[..., 0].argmax(1, keepdim=True)  # the picture that shows it most, of each seed

    def of_best(x: Tensor) -> np.ndarray[Any, Any]:
        return x.gather(1, best)[:, 0].double().numpy()

    nothing = torch.full((draws * n,), torch.nan)
    psnr = torch.stack([nothing if t.psnr is None else t.psnr.float() for t in trials])
    dims = ("trial", "seed")
    data = {
        "shown": (dims, of_best(said[..., 0])),
        "other": (dims, of_best(said[..., 1])),
        "fit": (dims, of_best(fit)),
        "psnr": (dims, of_best(psnr.view(len(trials), draws, n))),
    }
    told = ("probe", "attack", "who", "budget", "rows")
    names = {c: ("trial", [getattr(t, c) for t in trials]) for c in told}
    shown = to_array(torch.stack([t.images[0] for t in trials])).rename(sample="trial")
    same = [torch.equal(t.images, world.plain["clean"]) for t in trials]
    coords = {"seed": list(world.seeds), **names, "is_clean": ("trial", same)}
    return xr.Dataset({**data, "pictures": shown}, coords, {"best_of": draws})


def _check(about: str, instead: str, seeds: Sequence[int], probes: Sequence[str], batch: int) -> None:
    if about.strip().lower() == instead.strip().lower():
        raise UsageError(f"about and instead are both {about!r}; name what it means after the edit")
    if not seeds or len(set(seeds)) != len(seeds):
        raise UsageError(f"seeds is {list(seeds)!r}; give at least one, each once")
    if not probes or len(set(probes)) != len(probes):
        raise UsageError(f"probes is {list(probes)!r}; give some of {', '.join(PROBES)}, each once")
    for name in probes:
        if name not in PROBES:
            raise NotFoundError(f"there is no probe {name!r}; {near(name, PROBES)}")
    if not 1 <= batch <= 10**6:
        raise UsageError(f"batch is {batch}; it is 1 or more, and no more than fit into memory")
