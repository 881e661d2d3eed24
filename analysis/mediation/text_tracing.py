"""Causal mediation in a text encoder: which of its states carry a word of the prompt (docs/mediation.md).

Three kinds of runs share starting noise and sampler: clean (the prompt), corrupted (its subject taken out)
and restored (corrupted, but one state is as in the clean run). Meng et al. 2022 (ROME, section 2) for the
method; Basu et al. 2024 (arXiv 2310.13730) for diffusion models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ...models.arguments import checked
from ...models.base import Model
from ...models.errors import UsageError
from ...models.progress import Progress
from ...models.site import Site
from ...models.text.prompt import Prompt
from ...probes.intervene import patch
from ...probes.sweep.sweeping import SweepRun
from ...probes.text_states import site_states
from ..metrics import Metric
from .choice import text_windows
from .corruption import Corruption, Noise, Swap, encode_rows
from .result import Mediation
from .runs import CausalExperiment, Restored, open_experiment
from .token_axis import TokenAxis, token_axis


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
    tokens: Sequence[int | Sequence[int]] | None = None,
    window: int = 1,
    steps: int = 20,
    guidance: float | None = None,
    batch: int = 16,
    progress: Progress | None = None,
) -> Mediation:
    """Restore one state of the text encoder at a time: layer x kind x token (Basu et al. 2024).

    The restored text embedding feeds the denoiser at all steps. A conditioning that occurs twice is generated
    once: under a causal mask, all restorations before the subject change nothing.

    Args:
        model: an opened model with a text encoder.
        prompts: clean texts; their subjects and ends must lie at the same token positions.
        subject: the words to take out, or one for each prompt.
        seeds: each prompt is run with each seed.
        metric: scores finished runs (``analysis.metrics``).
        corruption: how the subject is taken out of all text encoders; ``Swap`` needs words of as many tokens.
        encoder: the text encoder whose states are restored, where there are several.
        kinds: of states; ``"resid.post"`` restores the whole residual stream.
        layers: of the text encoder; None is all that the denoiser reads.
        tokens: positions, or groups of positions restored together. None is each token up to the end token,
            and all padding as one group; ``range(n)`` is each of n positions on its own.
        window: how many neighbouring layers are restored together, the named one in the middle.
        steps: number of sampling steps.
        guidance: guidance scale; None is the model's default.
        batch: samples in one batch of the denoiser.
        progress: called with (done, total, what); without it a bar comes by itself.

    Returns:
        A Mediation with dims site, token, prompt, seed, draw.

    Raises:
        ValueError: for a model without text, prompts that do not line up, and runs that cannot be made.
        LookupError: for a subject that is not in its prompt, and unknown encoders, kinds or layers.
    """
    experiment = open_experiment(
        model,
        prompts,
        subject,
        seeds,
        metric=metric,
        corruption=corruption,
        steps=steps,
        guidance=guidance,
        batch=batch,
    )
    clean = [p.of(encoder) for p in experiment.clean]
    subjects = [words.find(s) for words, s in zip(clean, experiment.about["subject"], strict=True)]
    axis = token_axis(clean, subjects, tokens)
    _check_same_length(experiment, encoder)
    windows = text_windows(model, encoder, kinds, layers, window)
    kept = site_states(model, list(prompts), list(dict.fromkeys(s for w in windows.values() for s in w)))
    conditionings = [_restored(experiment, windows, axis, kept, p) for p in range(len(experiment.clean))]

    def restore(p: int, seed: int) -> Restored:
        return Restored([[SweepRun(prompt, seed) for prompt in place] for place in conditionings[p]])

    return experiment.mediate(list(windows), ("token", axis.coords()), restore, 1, progress)


def _restored(
    experiment: CausalExperiment,
    windows: Mapping[Site, Sequence[Site]],
    axis: TokenAxis,
    kept: Mapping[Site, Tensor],
    p: int,
) -> list[list[Prompt]]:
    """The restored conditionings of one prompt, [place][draw]."""
    put = [
        [patch(site, kept[site][p : p + 1], tokens=group) for site in together]
        for together in windows.values()
        for group in axis.groups
    ]
    draws = experiment.corruptions[p]
    rows = [(c.text, (*c.interventions(), *patches)) for patches in put for c in draws]
    found, corrupted = encode_rows(experiment.model, rows), experiment.corrupted[p]
    same = [_same_as(e, corrupted[i % len(draws)]) for i, e in enumerate(found)]
    return [same[i : i + len(draws)] for i in range(0, len(same), len(draws))]


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
