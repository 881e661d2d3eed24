"""What each kind of row of the encoded text carries: pictures from some of the rows, with no text elsewhere.

Toker et al. 2025, "Padding Tone" (arXiv:2501.06751), intervention in the text encoder (ITE). The encoded
prompt keeps its rows at some tokens; the others are those that the encoder gives for the empty text. Read two
scores of a kind together: it *alone* says what it is enough for, all *but* it what is lost without it. Rows
that carry the same twice are enough and yet not needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
import xarray as xr
from torch import Tensor

from ...models.arguments import checked
from ...models.base import Model, Prompt
from ...models.errors import UsageError
from ...models.progress import Progress
from ...models.run.sampling import Sampling, SamplingOptions
from ...models.store.provenance import provenance
from ...probes.sweep.sweeping import SweepRun, sweep
from ..localisation.scoring import score_prompts
from ..mediation.runs import check_each_once, each_subject
from ..mediation.token_axis import role_of, starts_of
from ..metrics import Metric
from ..scores import Scores

KINDS = ("begin", "subject", "words", "end", "padding")
"""What stands before the text, the words in question, all others, the token after them, what follows."""
_ROLES = {"start": "begin", "before": "words", "between": "words", "after": "words", "pad": "padding"}


@checked
def text_rows(
    model: Model,
    prompts: Sequence[str],
    subject: str | Sequence[str],
    *,
    seeds: Sequence[int],
    metric: Metric,
    kept: Mapping[str, Sequence[str]] | None = None,
    steps: int = 20,
    guidance: float | None = None,
    batch: int = 16,
    progress: Progress | None = None,
) -> Scores:
    """Return the metric of pictures that are given some rows of their prompt, and those of no text elsewhere.

    A pooled text and what is masked stay the prompt's.

    Args:
        model: an opened model that reads text.
        prompts: texts.
        subject: the words in question, or one for each prompt.
        seeds: each prompt is run with each seed.
        metric: scores finished runs; its clean run is the plain one.
        kept: by any name, the kinds of rows (``KINDS``) that are kept; None is all, none, and each kind alone
            and all but it.
        steps: number of sampling steps.
        guidance: guidance scale; None is the model's default.
        batch: samples in one batch of the denoiser.
        progress: called with (done, total, what); without it a bar comes by itself.

    Returns:
        Scores with dims site (the denoiser's text), kept, prompt, seed, in the metric's own units.

    Raises:
        ValueError: for kinds that there are not, no names, and texts that are too long.
        LookupError: for a subject that is not in its prompt.
    """
    check_each_once("prompts", prompts)
    check_each_once("seeds", seeds)
    chosen = _checked(alone_and_without() if kept is None else kept)
    how: SamplingOptions = {
        "steps": steps,
        "guidance": model.default_guidance if guidance is None else guidance,
    }
    with torch.no_grad():
        plain, nothing = model.encode(list(prompts)), model.encode([""])[0]
    subjects = each_subject(prompts, subject)
    kinds = [kinds_of(p, s) for p, s in zip(plain, subjects, strict=True)]
    mixed = [
        [with_rows(p, nothing, [k in some for k in own]) for p, own in zip(plain, kinds, strict=True)]
        for some in chosen.values()
    ]
    runs = [SweepRun(p, s) for given in [plain, *mixed] for p in given for s in seeds]
    made = sweep(model, runs, batch=batch, progress=progress, **how)
    latents = made.latents.unflatten(0, (1 + len(mixed), len(prompts), len(seeds)))
    about = provenance(model, **Sampling(**how).described(model), rows=made.rows, method="text_rows",
                       metric=getattr(metric, "__name__", repr(metric)))  # fmt: skip
    site = f"{model.input_site.component}/in/text"
    coords = {"site": [site], "kept": list(chosen), "prompt": list(prompts), "seed": list(seeds)}
    scores = score_prompts(model, metric, latents, plain, batch=batch)
    values = scores[None, 1:]  # [site, kept, prompt, seed]; the first is the plain run
    return Scores(xr.DataArray(values, coords, ("site", "kept", "prompt", "seed"), attrs=about))


def alone_and_without() -> dict[str, tuple[str, ...]]:
    """Return all, none, and each kind of row alone and all but it, by name."""
    found: dict[str, tuple[str, ...]] = {"all": KINDS, "none": ()}
    for kind in KINDS:
        found |= {f"{kind} alone": (kind,), f"all but {kind}": tuple(k for k in KINDS if k != kind)}
    return found


def kinds_of(prompt: Prompt, subject: str | None) -> list[str]:
    """Return the kind of each row that the denoiser reads, tokenizer by tokenizer; None is no subject.

    Raises:
        LookupError: if the prompt does not hold the subject.
    """
    found = list[str]()
    for words in prompt.segments:
        places = [] if subject is None else words.find(subject)
        starts = starts_of(words)
        for t in range(len(words.tokens)):
            kind = "start" if t < starts else role_of(t, places, words.end)
            found.append(_ROLES.get(kind, kind))
    return found


def with_rows(prompt: Prompt, nothing: Prompt, own: Sequence[bool]) -> Prompt:
    """Return the prompt, with rows of no text where it does not keep its own.

    Raises:
        ValueError: for encodings of different length.
    """
    keep = torch.tensor(own, device=prompt.embeds.device)[:, None]
    empty: Tensor = nothing.embeds
    if empty.shape != prompt.embeds.shape:
        raise UsageError(
            f"{prompt.text!r} has {len(prompt.embeds)} rows and the empty text {len(empty)}; rows can be "
            "taken from it where texts are padded to one length"
        )
    return replace(prompt, embeds=torch.where(keep, prompt.embeds, empty.to(prompt.embeds)))


def _checked(kept: Mapping[str, Sequence[str]]) -> dict[str, Sequence[str]]:
    if not kept:
        raise UsageError('kept is {}; name what is kept: {"padding alone": ["padding"]}')
    for name, kinds in kept.items():
        if any(k not in KINDS for k in kinds):
            raise UsageError(f"kept[{name!r}] is {list(kinds)}; it holds kinds of rows: {', '.join(KINDS)}")
    return dict(kept)
