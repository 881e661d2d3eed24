"""LocoGen: which layers read the words that matter? Some of them read another prompt.

Basu et al. 2024 (arXiv 2405.01008): in a window of cross-attention layers keys and values are those of
another prompt, in all other layers those of the prompt; conditional rows alone.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from ...models.arguments import checked
from ...models.base import Model, Prompt
from ...models.errors import NotFoundError, UsageError
from ...models.progress import Progress, part, showing
from ...models.run.context import CallContext, When
from ...models.run.sampling import Sampling, SamplingOptions
from ...models.site import Site
from ...models.store.provenance import provenance
from ...probes.intervene import Change, Intervention, Spec
from ...probes.sweep.sweeping import SweepRun, sweep
from ..mediation.choice import copy_row, step_windows
from ..mediation.runs import check_each_once
from ..metrics import Metric
from ..scores import Scores
from .bootstrap import Array
from .scoring import score_runs, shares

READING = ("cross_attn.k_proj", "joint_attn.k_proj")
Masks = tuple[Tensor, Tensor, Tensor]
"""Of the prompt, of the other, and of what either allows."""
Windows = dict[tuple[int, str], tuple[Site, ...]]
"""For each first layer and name of a window, its layers."""


@checked
def locogen(  # noqa: PLR0913  # one experiment, all its settings by name
    model: Model,
    prompts: Sequence[str],
    others: Sequence[str],
    *,
    seeds: Sequence[int],
    metric: Metric,
    widest: int = 3,
    settings: Literal["paper"] | None = None,
    pooled: bool = False,
    when: Collection[int] | None = None,
    steps: int = 20,
    guidance: float | None = None,
    batch: int = 16,
    progress: Progress | None = None,
) -> Scores:
    """Let windows of layers read another prompt, windows of 1 to ``widest`` layers, and score the pictures.

    What a layer reads is replaced where it makes keys and values of the text, with the other text's mask.
    In cross-attention the other text is the same at all steps. In joint attention (SD3, double blocks of
    FLUX) the text is rewritten on its way: there a block's text keys and values are those of the other
    prompt's run, shown the run's own latents at each step, which doubles the rows; the block's own text
    stream goes on.

    Args:
        model: an opened model whose denoiser reads text by attention.
        prompts: what all other layers read.
        others: what the window reads instead, one for each prompt: the prompt without a style, say.
        seeds: each prompt is run with each seed.
        metric: scores finished runs (``analysis.metrics``), whose prompts are ``prompts``.
        widest: windows have 1, 2, ... so many neighbouring layers.
        settings: ``"paper"`` takes the published windows instead: a layer and the next two, where there
            are two, and else the layer alone.
        pooled: whether the pooled text, which is no layer's own, is the other's too (SDXL, SD3, FLUX).
        when: steps at which the other prompt is read; None is all, as published.
        steps: number of sampling steps.
        guidance: guidance scale; None is the model's default.
        batch: samples in one batch of the denoiser.
        progress: called with (done, total, what); without it a bar comes by itself.

    Returns:
        Scores with dims site (the first layer, by its keys), window, prompt, seed: the share of the
        change from the prompt (0) to the other (1). NaN where a window would reach past the last layer.

    Raises:
        ValueError: if the other prompts do not fit or change nothing, and for runs that cannot be made.
        LookupError: for a model that reads no text by attention.
    """
    if len(prompts) != len(others):
        raise UsageError(f"{len(prompts)} prompts but {len(others)} others; give one other for each prompt")
    check_each_once("prompts", prompts)
    check_each_once("seeds", seeds)
    windows = _windows(reading_layers(model), widest, settings)
    (at,) = step_windows(None if when is None else [when], len(model.steps(steps)))
    how: SamplingOptions = {
        "steps": steps,
        "guidance": model.default_guidance if guidance is None else guidance,
    }
    with torch.no_grad():
        pairs = list(zip(model.encode(list(prompts)), model.encode(list(others)), strict=True))
    scores, rows = [], 0
    with showing(progress) as show:
        for i, (prompt, other) in enumerate(pairs):
            put = _Reading(model, prompt, other, at, pooled)
            each = [put.run(layers) for layers in windows.values()]
            runs = [
                replace(r, seed=seed)
                for r in (SweepRun(prompt, 0), SweepRun(other, 0), *each)
                for seed in seeds
            ]
            made = sweep(model, runs, batch=batch, progress=part(show, i, 1, len(pairs)), **how)
            scores.append(score_runs(model, metric, made.latents, prompt, seeds=len(seeds), batch=batch))
            rows += made.rows
    found = np.stack(scores, 1)  # [run, prompt, seed]
    about = provenance(model, **Sampling(**how).described(model), rows=rows, others=list(others),
                       metric=getattr(metric, "__name__", repr(metric)))  # fmt: skip
    return _labelled(windows, found, prompts, seeds, about)


def _labelled(
    windows: Windows, found: Array, prompts: Sequence[str], seeds: Sequence[int], about: dict[str, Any]
) -> Scores:
    """Scores [run, prompt, seed] of the prompt, the other and each window as shares of the whole change."""
    sites = list(dict.fromkeys(layers[0] for layers in windows.values()))
    names = list(dict.fromkeys(name for _, name in windows))
    effect = np.full((len(sites), len(names), *found.shape[1:]), np.nan)
    for (first, name), scores in zip(windows, found[2:], strict=True):
        effect[first, names.index(name)] = found[0] - scores
    coords = {
        "site": [str(s) for s in sites],
        "window": names,
        "prompt": list(prompts),
        "seed": list(seeds),
    }
    values = xr.DataArray(effect, coords, ("site", "window", "prompt", "seed"), attrs=about)
    total = xr.DataArray(found[0] - found[1], {k: coords[k] for k in ("prompt", "seed")}, ("prompt", "seed"))
    return shares(values, total, "the other prompt")


def reading_layers(model: Model) -> list[Site]:
    """Return the keys of the text in each layer through which the denoiser reads it, in network order.

    Raises:
        LookupError: if it reads no text by attention.
    """
    part = model.input_site.component
    found = [s for s in model.places() if s.component == part and s.kind in READING]
    found = [s for s in found if s.stream == ("txt" if _two_streams(s) else "")]
    if not found:
        model.reading_sites()
        raise NotFoundError(f"{model.name} has no attention whose keys are of the text alone")
    return found


def _two_streams(site: Site) -> bool:
    """Whether picture and text have projections of their own; in single blocks they are one sequence."""
    return site.kind.startswith("joint") and not site.block.startswith("single")


def _windows(layers: Sequence[Site], widest: int, settings: str | None) -> Windows:
    n = len(layers)
    if settings is not None:
        return {(i, settings): tuple(layers[i : i + (3 if i + 2 < n else 1)]) for i in range(n)}
    if not 1 <= widest <= n:
        raise UsageError(f"widest is {widest}; windows have 1 to {n} layers, as many as read text")
    return {(i, str(m)): tuple(layers[i : i + m]) for m in range(1, widest + 1) for i in range(n - m + 1)}


class _Reading:
    """How layers of one prompt's runs come to read another."""

    def __init__(self, model: Model, prompt: Prompt, other: Prompt, when: When, pooled: bool) -> None:
        self.model, self.other, self.when = model, other, when
        self.layers = reading_layers(model)
        self.joint = any(s.kind.startswith("joint") for s in self.layers)
        self.masks = _masks(prompt, other)
        self.prompt = prompt if self.masks is None else replace(prompt, mask=self.masks[2])
        self.texts = {} if self.joint else _texts(model, other, self.layers)
        self.always = self._pooled() if pooled else []

    def run(self, layers: Sequence[Site]) -> SweepRun:
        """A run in which some layers read the other prompt; its seed is to be set."""
        put = [self._text(site) for layer in layers for site in (layer, _values(layer))]
        put += self.always
        if self.joint:
            entry = Intervention(self.model.input_site, copy_row(0, 1), self.when)
            return SweepRun(self.prompt, 0, (entry, *put), (self.other,))
        if self.masks is not None:
            put += [i for layer in self.layers for i in self._masked(self.masks, layer, layer in layers)]
        return SweepRun(self.prompt, 0, tuple(put))

    def _text(self, site: Site) -> Intervention:
        if self.joint and site.stream:
            return Intervention(site, copy_row(1, 0), self.when)
        if self.joint:
            return Intervention(site, _copy_text(self.model.layout(site).text), self.when)
        text = self.texts[site]
        spec = Spec("the text of another prompt", {"text": text})
        return Intervention(site, lambda x, _: text.to(x).expand_as(x), self.when, spec)

    def _pooled(self) -> list[Intervention]:
        site = Site(f"{self.model.input_site.component}/in/pooled")
        value = self.other.pooled
        if site not in self.model.places() or value is None:
            raise UsageError(f"{self.model.name} reads no pooled text; leave out pooled=True")
        spec = Spec("the pooled text of another prompt", {"pooled": value})
        if self.joint:  # the other's own row keeps what it has
            return [Intervention(site, copy_row(1, 0), self.when)]
        return [Intervention(site, lambda x, _: value.to(x).expand_as(x), self.when, spec)]

    def _masked(self, masks: Masks, layer: Site, read_other: bool) -> list[Intervention]:
        """Leave out of one layer what its prompt's mask does: the run is given what either allows."""
        own, others, _ = masks
        site = Site(str(layer).replace(".k_proj", ".probs"))
        within, outside = (others if read_other else own), own
        acts = self.when.steps
        every = range(10**4) if acts is None else acts

        def fn(x: Tensor, context: CallContext) -> Tensor:
            mask = within if context.index in every else outside
            kept = x * mask.to(x)
            return kept / kept.sum(-1, keepdim=True)

        spec = Spec(
            "mask", {"within": within, "outside": outside, "steps": None if acts is None else sorted(acts)}
        )
        return [Intervention(site, fn, When(), spec)]


def _copy_text(text: slice | None) -> Change:
    """Give the first row of a batch the second one's text tokens, where picture and text are one sequence."""

    def fn(x: Tensor, _: CallContext) -> Tensor:
        new = x.clone()
        new[0, text] = x[1, text]
        return new

    return fn


def _masks(prompt: Prompt, other: Prompt) -> Masks | None:
    """The masks of both prompts and what either allows; None where they are one."""
    a, b = prompt.mask, other.mask
    if a is None or b is None or torch.equal(a, b):
        return None
    return a, b, torch.maximum(a, b)


def _texts(model: Model, other: Prompt, layers: Sequence[Site]) -> dict[Site, Tensor]:
    """Keys and values of a text in each layer, [1, token, channel]; the same at all steps."""
    found: dict[Site, Tensor] = {}

    def keep(site: Site) -> Intervention:
        return Intervention(site, lambda x, _: found.update({site: x.clone()}))

    step = model.levels[len(model.levels) // 2]
    sites = [site for layer in layers for site in (layer, _values(layer))]
    with torch.no_grad():
        model.denoise(model.noise([0]), step, [other], interventions=[keep(s) for s in sites])
    return found


def _values(keys: Site) -> Site:
    return Site(str(keys).replace(".k_proj", ".v_proj"))
