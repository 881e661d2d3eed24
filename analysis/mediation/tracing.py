"""Causal mediation: which activations carry a word of the prompt into the picture (docs/mediation.md).

Three kinds of runs share starting noise and sampler: clean (the prompt), corrupted (its subject taken out)
and restored (corrupted, but one state is as in the clean run). Meng et al. 2022 (ROME, section 2) for the
method; Basu et al. 2024 (arXiv 2310.13730) for diffusion models.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from ...models.base import Model
from ...models.run.levels import Step, When
from ...models.site import Site
from ...models.text.prompt import Prompt
from ...probes.intervene import Change, Intervention, patch
from ...probes.sweep.sweeping import Progress, Run
from ...probes.trace import expand, trace
from ..metrics import Metric
from .corruption import Corruption, Noise, Swap, encode_rows, states
from .result import Mediation
from .runs import CausalExperiment, Restored, open_experiment
from .token_axis import token_axis

KINDS = ("resnet.out", "self_attn.out", "cross_attn.out", "joint_attn.out", "mlp.out", "attn_mlp.out")
"""What ``trace_denoiser`` restores by default: what each layer adds to the stream."""


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
        layers: of the text encoder; None is all.
        tokens: positions, or groups of positions restored together. None is each token up to the end token,
            and all padding as one group; ``range(n)`` is each of n positions on its own.
        window: how many neighbouring layers are restored together, the named one in the middle.
        steps: number of sampling steps.
        guidance: guidance scale; None is the model's default.
        batch: samples in one batch of the denoiser.
        progress: called with (runs done, runs to make).

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
    axis = token_axis(
        clean, [w.find(s) for w, s in zip(clean, experiment.about["subject"], strict=True)], tokens
    )
    _check_same_length(experiment, encoder)
    windows = _text_windows(model, encoder, kinds, layers, window)
    kept = states(model, list(prompts), list(dict.fromkeys(s for w in windows.values() for s in w)))

    def restored_prompts(p: int) -> list[list[Prompt]]:
        """The restored conditionings of one prompt, [place][draw]."""
        put = [
            [patch(site, kept[site][p : p + 1], tokens=group) for site in together]
            for together in windows.values()
            for group in axis.groups
        ]
        draws = experiment.corruptions[p]
        rows = [(c.text, (*c.interventions(), *patches)) for patches in put for c in draws]
        found, corrupted = encode_rows(model, rows), experiment.corrupted[p]
        same = [_same_as(e, corrupted[i % len(draws)]) for i, e in enumerate(found)]
        return [same[i : i + len(draws)] for i in range(0, len(same), len(draws))]

    conditionings = [restored_prompts(p) for p in range(len(experiment.clean))]

    def restore(p: int, seed: int) -> Restored:
        return Restored([[Run(prompt, seed) for prompt in place] for place in conditionings[p]])

    return experiment.mediate(list(windows), ("token", axis.coords()), restore, 1, progress)


def trace_denoiser(  # noqa: PLR0913  # one experiment, all its settings by name
    model: Model,
    prompts: Sequence[str],
    subject: str | Sequence[str],
    *,
    seeds: Sequence[int],
    metric: Metric,
    sites: Sequence[Site | str] | Site | str | None = None,
    windows: Sequence[Collection[int]] | None = None,
    source: Literal["trajectory", "in_place"] = "trajectory",
    corruption: Corruption = Noise(),  # noqa: B008  # a frozen value
    steps: int = 20,
    guidance: float | None = None,
    batch: int = 16,
    progress: Progress | None = None,
) -> Mediation:
    """Restore one site of the denoiser at a time, in the guidance branch that reads the prompt.

    Args:
        model: an opened model with a text encoder.
        prompts: clean texts.
        subject: the words to take out, or one for each prompt.
        seeds: each prompt is run with each seed.
        metric: scores finished runs (``analysis.metrics``).
        sites: sites, addresses or globs; None is all of ``KINDS``: what each layer adds to the stream.
        windows: sets of step indices, like ``[range(0, 5), range(5, 20)]``; sites are restored in one
            window at a time. None is at all steps, as published.
        source: where restored activations come from. ``"trajectory"``: the clean run (Basu et al. 2024), so
            they also carry what clean latents look like. ``"in_place"``: the clean prompt at the restored
            run's own latents, which isolates the path from text through the site and doubles the rows.
        corruption: how the subject is taken out.
        steps: number of sampling steps.
        guidance: guidance scale; None is the model's default.
        batch: samples in one batch of the denoiser.
        progress: called with (runs done, runs to make).

    Returns:
        A Mediation with dims site, (window,) prompt, seed, draw.

    Raises:
        ValueError: for a model without text, sites outside the denoiser, and runs that cannot be made.
        LookupError: for a subject that is not in its prompt, and unknown sites.
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
    places = _denoiser_sites(model, sites)
    whens = _whens(windows, len(model.steps(steps)))
    restore = {"trajectory": _from_trajectory, "in_place": _in_place}.get(source)
    if restore is None:
        raise ValueError(f"source is {source!r}; it is 'trajectory' (the clean run) or 'in_place'")
    columns = None if windows is None else ("window", {"window": [_window_name(w) for w in whens]})
    experiment.about["source"] = source
    return experiment.mediate(places, columns, partial(restore, experiment, places, whens), 3, progress)


def _from_trajectory(
    experiment: CausalExperiment, sites: Sequence[Site], whens: Sequence[When], p: int, seed: int
) -> Restored:
    """Activations of the clean run, made once; the largest memory is that of one sample's run."""
    settings = {k: experiment.settings[k] for k in ("steps", "guidance")}
    needed = None if whens[0].steps is None else sorted({i for w in whens for i in w.steps or ()})
    when = When(needed)
    clean = trace(experiment.model, [experiment.clean[p]], seeds=[seed], sites=sites, when=when, **settings)
    put = [(patch(site, clean, when),) for site in sites for when in whens]
    runs = [[Run(corrupted, seed, patches) for corrupted in experiment.corrupted[p]] for patches in put]
    return Restored(runs, clean.latents[0], experiment.rows_per_run)


def _in_place(
    experiment: CausalExperiment, sites: Sequence[Site], whens: Sequence[When], p: int, seed: int
) -> Restored:
    """Beside each run (row 0) the clean prompt (row 1), shown the run's own latents at each step."""
    entry = experiment.model.entry

    def pair(site: Site, when: When) -> tuple[Intervention, ...]:
        return (Intervention(entry, _copy(0, 1), when), Intervention(site, _copy(1, 0), when))

    put = [pair(site, when) for site in sites for when in whens]
    beside = (experiment.clean[p],)
    return Restored([[Run(corrupted, seed, i, beside) for corrupted in experiment.corrupted[p]] for i in put])


def _copy(source: int, target: int) -> Change:
    def fn(x: Tensor, _: Step | None) -> Tensor:
        y = x.clone()
        y[target] = x[source]
        return y

    return fn


def _text_windows(
    model: Model, encoder: str, kinds: Sequence[str], layers: Sequence[int] | None, window: int
) -> dict[Site, list[Site]]:
    """For each site, layer by layer, the sites restored with it: ``window`` layers, as in ROME."""
    if window < 1 or not kinds:
        raise ValueError(f"window is {window} and kinds is {kinds!r}; give at least 1 layer and one kind")
    towers = [list(model.sites(f"{encoder}/layer.*/{kind}")) for kind in kinds]
    n = len(towers[0])
    wrong = [layer for layer in layers or () if layer not in range(n)]
    if wrong:
        raise LookupError(
            f"{model.name} has no layer {wrong[0]} in its {encoder}; it has layers 0 to {n - 1}"
        )
    return {
        tower[i]: tower[max(0, i - window // 2) : i + (window + 1) // 2]
        for i in (range(n) if layers is None else layers)
        for tower in towers
    }


def _check_same_length(experiment: CausalExperiment, encoder: str) -> None:
    if not isinstance(experiment.corruption, Swap):
        return
    for clean, draws in zip(experiment.clean, experiment.corrupted, strict=True):
        if draws[0].of(encoder).end != clean.of(encoder).end:
            raise ValueError(
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


def _denoiser_sites(model: Model, sites: Sequence[Site | str] | Site | str | None) -> list[Site]:
    part = model.entry.component
    if sites is None:
        return [s for s in model.sites(f"{part}/**") if s.kind in KINDS]
    found = expand(model, sites)
    outside = [s for s in found if s.component != part]
    if outside or not found:
        raise ValueError(
            f"{outside[0] if outside else sites!r} is not in the denoiser; name sites of {part}/, "
            "and trace text encoders with trace_text"
        )
    return found


def _window_name(when: When) -> str:
    steps = tuple(when.steps or ())
    whole = steps == tuple(range(steps[0], steps[-1] + 1))
    return f"{steps[0]}-{steps[-1]}" if whole else ",".join(map(str, steps))


def _whens(windows: Sequence[Collection[int]] | None, n_steps: int) -> list[When]:
    if windows is None:
        return [When()]
    if not windows:
        raise ValueError(f"windows is empty; give sets of steps like [range(0, {n_steps})], or None for all")
    whens = [When(steps=tuple(sorted(set(w)))) for w in windows]
    for when in whens:
        when.check(n_steps, 1, guided=False)
    return whens


__all__ = ["KINDS", "Corruption", "Mediation", "Noise", "Swap", "trace_denoiser", "trace_text"]
