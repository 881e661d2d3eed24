"""Causal mediation in a text encoder: which of its states carry a word of the prompt (docs/mediation.md).

Three kinds of runs share starting noise and sampler: clean (the prompt), corrupted (its subject taken out)
and restored (corrupted, but one state is as in the clean run). Meng et al. 2022 (ROME, section 2) for the
method; Basu et al. 2024 (arXiv 2310.13730) for diffusion models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ...models.arguments import checked
from ...models.base import Model
from ...models.errors import UsageError
from ...models.progress import Progress
from ...models.site import Site
from ...models.text.prompt import Prompt
from ...probes.intervene import Intervention, patch
from ...probes.sweep.sweeping import SweepRun
from ...probes.text_states import site_states
from ..metrics import Metric
from .choice import text_windows
from .corruption import CorruptedText, Corruption, Noise, Swap, encode_rows
from .result import Mediation
from .runs import CausalExperiment, Restored, open_experiment
from .token_axis import TokenAxis, by_role, token_axis
from .tracing import Tracing


@checked
def trace_text(  # noqa: PLR0913  # one experiment, all its settings by name
    model: Model,
    prompts: Sequence[str],
    subject: str | Sequence[str],
    *,
    seeds: Sequence[int],
    metric: Metric,
    corruption: Corruption = Noise(),  # noqa: B008  # a frozen value
    encoder: str = "text_encoder",
    kinds: Sequence[str] = ("self_attn.out", "mlp.out"),
    layers: Sequence[int] | None = None,
    tokens: Sequence[int | Sequence[int]] | Literal["roles"] | None = None,
    window: int = 1,
    direct: bool = False,
    steps: int = 20,
    guidance: float | None = None,
    batch: int = 16,
    store: str | Path | None = None,
    progress: Progress | None = None,
) -> Mediation:
    """Restore one state of the text encoder at a time: layer x kind x token (Basu et al. 2024).

    The restored text embedding feeds the denoiser at all steps. A conditioning that occurs twice is generated
    once: under a causal mask, all restorations before the subject change nothing.

    Args:
        model: an opened model with a text encoder.
        prompts: clean texts; their subjects and ends must lie at the same token positions, but for
            ``tokens="roles"``.
        subject: the words to take out, or one for each prompt.
        seeds: each prompt is run with each seed.
        metric: scores finished runs (``analysis.metrics``).
        corruption: how the subject is taken out of all text encoders; ``Swap`` needs words of as many tokens.
        encoder: the text encoder whose states are restored, where there are several.
        kinds: of states; ``"resid.post"`` restores the whole residual stream.
        layers: of the text encoder; None is all that the denoiser reads.
        tokens: positions, or groups of positions restored together. None is each token up to the end token,
            and all padding as one group; ``range(n)`` is each of n positions on its own. ``"roles"`` compares
            prompts of any length: all that stands before the subject, the subject, what follows, the end
            token, the padding. A prompt that has nothing there has an effect of 0.
        window: how many neighbouring layers are restored together, the named one in the middle.
        direct: encode the clean prompt with each state as in the corrupted one, too: ``direct_effect`` and
            ``necessary``. Twice the runs.
        steps: number of sampling steps.
        guidance: guidance scale; None is the model's default.
        batch: samples in one batch of the denoiser.
        store: a folder; each prompt and seed that is in it is not run again, so a call that was stopped goes
            on (docs/studies.md).
        progress: called with (done, total, what); without it a bar comes by itself.

    Returns:
        A Mediation with dims site, token, prompt, seed, draw.

    Raises:
        ValueError: for a model without text, prompts that do not line up, and runs that cannot be made.
        LookupError: for a subject that is not in its prompt, and unknown encoders, kinds or layers.
        RuntimeError: for a store of another model or other settings, or that another process writes.
    """
    tracing = text_tracing(
        model, prompts, subject, seeds=seeds, metric=metric, corruption=corruption, encoder=encoder,
        kinds=kinds, layers=layers, tokens=tokens, window=window, direct=direct, steps=steps,
        guidance=guidance, batch=batch,
    )  # fmt: skip
    return tracing.run(progress, store)


def text_tracing(  # noqa: PLR0913  # what trace_text is given
    model: Model,
    prompts: Sequence[str],
    subject: str | Sequence[str],
    *,
    seeds: Sequence[int],
    metric: Metric,
    corruption: Corruption = Noise(),  # noqa: B008  # a frozen value
    encoder: str = "text_encoder",
    kinds: Sequence[str] = ("self_attn.out", "mlp.out"),
    layers: Sequence[int] | None = None,
    tokens: Sequence[int | Sequence[int]] | Literal["roles"] | None = None,
    window: int = 1,
    direct: bool = False,
    steps: int = 20,
    guidance: float | None = None,
    batch: int = 16,
) -> Tracing:
    """Return what ``trace_text`` runs; errors as its."""
    experiment = open_experiment(
        model, prompts, subject, seeds, metric=metric, corruption=corruption, steps=steps,
        guidance=guidance, batch=batch,
    )  # fmt: skip
    clean = [p.of(encoder) for p in experiment.clean]
    subjects = [words.find(s) for words, s in zip(clean, experiment.about["subject"], strict=True)]
    if isinstance(tokens, str):
        own = by_role(clean, subjects)
    else:
        own = [token_axis(clean, subjects, tokens)] * len(clean)
    _check_same_length(experiment, encoder)
    windows = text_windows(model, encoder, kinds, layers, window)
    sites = list(dict.fromkeys(s for w in windows.values() for s in w))
    made = cache(lambda p: _conditionings(experiment, windows, own[p], sites, p, direct=direct))

    def restore(p: int, seed: int) -> Restored:
        restored, blocked = ([[SweepRun(x, seed) for x in place] for place in places] for places in made(p))
        return Restored(restored, blocked=blocked)

    def counted(p: int, seed: int) -> Restored:
        """Each conditioning another one, as if none read the same: without weights nobody knows."""
        draws, n = experiment.corrupted[p], len(windows) * len(own[p].groups)
        restored, blocked = (
            [[SweepRun(replace(x), seed) for x in draws] for _ in range(n * on)] for on in (True, direct)
        )
        return Restored(restored, blocked=blocked)

    recipe = {"study": "trace_text", "direct": direct, **_told(windows, own)}
    unweighed = counted if model.device.type == "meta" else None
    columns = ("token", own[0].coords())
    return Tracing(experiment, list(windows), columns, restore, 1, direct, recipe, unweighed)


def _told(windows: Mapping[Site, Sequence[Site]], own: Sequence[TokenAxis]) -> dict[str, Any]:
    """Which places there are, as JSON."""
    return {
        "windows": [[str(site), *map(str, some)] for site, some in windows.items()],
        "tokens": [[list(group) for group in axis.groups] for axis in own],
    }


Conditionings = list[list[Prompt]]
"""[place][draw]."""


def _conditionings(
    experiment: CausalExperiment,
    windows: Mapping[Site, Sequence[Site]],
    axis: TokenAxis,
    sites: Sequence[Site],
    p: int,
    *,
    direct: bool,
) -> tuple[Conditionings, Conditionings]:
    """The restored conditionings of one prompt, and the blocked ones."""
    model, draws, clean = experiment.model, experiment.corruptions[p], experiment.clean[p]
    places = [(together, group) for together in windows.values() for group in axis.groups]
    kept = site_states(model, [clean.text], sites)
    put = [[patch(s, kept[s], tokens=group) for s in together if group] for together, group in places]
    rows: list[tuple[str, tuple[Intervention, ...]]]
    rows = [(c.text, (*c.interventions(), *patches)) for patches in put for c in draws]
    restored = _few(encode_rows(model, rows), experiment.corrupted[p])
    if not direct:
        return restored, []
    spoilt = [_states_of(model, c, sites) for c in draws]
    rows = [
        (clean.text, tuple(patch(s, states[s], tokens=group) for s in together if group))
        for together, group in places
        for states in spoilt
    ]
    return restored, _few(encode_rows(model, rows), [clean] * len(draws))


def _few(found: Sequence[Prompt], plain: Sequence[Prompt]) -> Conditionings:
    """[place][draw], with the plain conditioning of each draw itself where nothing was changed."""
    n = len(plain)
    same = [_same_as(e, plain[i % n]) for i, e in enumerate(found)]
    return [same[i : i + n] for i in range(0, len(same), n)]


def _states_of(model: Model, corrupted: CorruptedText, sites: Sequence[Site]) -> dict[Site, Tensor]:
    """What passes through sites while a corrupted text is encoded, [1, token, channel]."""
    found: dict[Site, Tensor] = {}

    def keep(site: Site) -> Intervention:
        return Intervention(site, lambda x, _: found.update({site: x.detach().clone()}))

    encode_rows(model, [(corrupted.text, (*corrupted.interventions(), *map(keep, sites)))])
    return found


def _check_same_length(experiment: CausalExperiment, encoder: str) -> None:
    if not isinstance(experiment.corruption, Swap):
        return
    for clean, draws in zip(experiment.clean, experiment.corrupted, strict=True):
        if draws[0].of(encoder).end != clean.of(encoder).end:
            raise UsageError(
                f"{draws[0].text!r} has another number of tokens than {clean.text!r}, so its states "
                "cannot be restored token by token; swap in words of as many tokens, or use Noise()"
            )


def _same_as(restored: Prompt, corrupted: Prompt) -> Prompt:
    """The corrupted conditioning itself where restoring changed nothing, up to the rounding of kernels."""
    both = [(restored.embeds, corrupted.embeds)]
    if restored.pooled is not None and corrupted.pooled is not None:
        both.append((restored.pooled, corrupted.pooled))
    return corrupted if all(_about_equal(a, b) for a, b in both) else restored


def _about_equal(a: Tensor, b: Tensor) -> bool:
    tolerance = 16 * torch.finfo(b.dtype).eps * float(b.abs().max())
    return float((a - b).abs().max()) <= tolerance
