"""Word heat maps from attention: which part of the picture reads which word.

DAAM (Tang et al., ACL 2023, "What the DAAM: Interpreting Stable Diffusion Using Cross Attention"). With
P the probabilities with which the picture's tokens look at the text's, in layer l, head i and step t (from
cross-attention, or from the picture's rows and the text's columns of joint attention), the map of token k is

    D_k = mean over l, i of  max(0, bicubic( sum over t of P_k[t, l, i] ))

and the map of a word is the mean over the tokens that spell it, at every occurrence. Only the rows that
read the prompt are looked at, chosen by name and not by halving the batch, so it also holds for several
prompts and without guidance. Reading leaves the picture bit-identical.

Memory: samples x heads x queries x wanted tokens for each layer, plus one full softmax at a time; the
resized maps are added up head by head. Attention is where a word is read, not what it causes; for causes
use ``mediation``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from ...models.adapter import LARGEST
from ...models.arguments import check_fields, checked
from ...models.base import Model, Prompt, State
from ...models.drawn import Figure, figure
from ...models.errors import NotFoundError, UsageError
from ...models.html import panel, pictures, table
from ...models.progress import Progress
from ...models.run.context import CallContext, When
from ...models.site import Site
from ...probes.intervene import Change, Intervention
from ...probes.trace import Trace, expand, trace
from .heat import find_all, heat_of, label, words_of
from .overlay import overlays

Time = Literal["mean", "sum", "each"]
MOST_WORDS = 8
"""So many words show themselves in a notebook."""
Sums = dict[int, dict[Site, Tensor]]


@dataclass(frozen=True, eq=False)
class WordMaps:
    """Where the words of prompts were read while their pictures were made.

    Args:
        maps: dims (sample, word, y, x), and a leading ``step`` if every step was asked for. Values are
            attention probabilities (mean, each) or their sum over steps. NaN where a sample's prompt does
            not have the word.
        run: the run itself, for its latents, images and provenance.
    """

    maps: xr.DataArray
    run: Trace

    def __post_init__(self) -> None:
        check_fields(self)

    def __repr__(self) -> str:
        words = ", ".join(str(w) for w in self.maps["word"].values[:8])
        return f"WordMaps({words}; {dict(self.maps.sizes)}; {self.run!r})"

    def _repr_html_(self) -> str:
        first = self._over_steps().isel(sample=0).dropna("word", how="all")[:MOST_WORDS]
        names = [f"{w}: up to {float(m.max()):.2g}" for w, m in zip(first["word"].values, first, strict=True)]
        frame = self.to_frame()
        return panel(
            repr(self),
            pictures(overlays(self.images[0], first), names, MOST_WORDS),
            table(list(frame.columns), frame.itertuples(index=False)),
        )

    def to_frame(self) -> pd.DataFrame:
        """Return a table: how much each word is read in each sample, on average and at most, and where most.

        Columns: sample, word, mean, peak (attention), y and x of the peak (cells of the map).
        """
        rows = []
        for i, sample in enumerate(self._over_steps()):
            for one in sample.dropna("word", how="all"):
                y, x = divmod(int(one.values.argmax()), one.sizes["x"])
                rows.append((i, str(one["word"].item()), float(one.mean()), float(one.max()), y, x))
        return pd.DataFrame(rows, columns=["sample", "word", "mean", "peak", "y", "x"])

    @checked
    def plot(self, sample: int = 0, *, shared: bool = True) -> Figure:
        """Return the maps of one sample over its picture, ``analysis.plots.word_heat``.

        Args:
            sample: which one.
            shared: colour all words on one scale.

        Raises:
            ValueError: for a sample that is not there, and for maps of every step.
        """
        return figure("word_heat", self, sample=sample, shared=shared)

    def _over_steps(self) -> xr.DataArray:
        """The maps, averaged over steps where there is one for each: dims (sample, word, y, x)."""
        return self.maps.mean("step") if "step" in self.maps.dims else self.maps

    @property
    def images(self) -> Float[Tensor, "sample 3 height width"]:
        """The pictures in 0..1, equal to those of a plain run."""
        return self.run.images

    @property
    def latents(self) -> Float[Tensor, "sample ..."]:
        """The final latents."""
        return self.run.latents

    def to_xarray(self) -> xr.Dataset:
        """Return a labelled dataset with ``word_maps`` and ``latents``."""
        maps = self.maps.drop_vars(["prompt", "seed", "sigma"], errors="ignore")
        dataset: xr.Dataset = self.run.to_xarray().assign(word_maps=maps)
        return dataset


@checked
def word_maps(  # noqa: PLR0913 - what one run is, and what of it is mapped
    model: Model,
    prompts: Sequence[str | Prompt],
    words: Sequence[str] | None = None,
    *,
    seeds: Sequence[int],
    steps: int = 20,
    guidance: float | None = None,
    negative: str = "",
    sites: Sequence[Site | str] | Site | str | None = None,
    when: When = When(),
    time: Time = "mean",
    size: tuple[int, int] | None = None,
    interventions: Sequence[Intervention] = (),
    on_step: Callable[[State], None] | None = None,
    progress: Progress | None = None,
) -> WordMaps:
    """Generate pictures and map where each word was read.

    Args:
        model: a model that reads prompts.
        prompts: one for each sample.
        words: words, or runs of words, that every prompt has; None takes all words of each prompt that the
            tokenizer knows, and warns of others.
        seeds: one for each sample.
        steps: number of steps.
        guidance: guidance scale; None is the model's default.
        negative: text of the unconditional branch.
        sites: which attentions to the text count, each head alike. None is all of them; the published code
            leaves out the middle block and the coarsest maps.
        when: which steps and samples to look at.
        time: ``"sum"`` over steps (as published), ``"mean"`` (the same divided by the number of steps), or
            ``"each"``: one map for each step, by the same formula.
        size: height and width of the maps; None is the latents' own.
        interventions: what to change on the way; the maps show attention after the change.
        on_step: called with each State.
        progress: called with (done, total, what); without it a bar comes by itself.

    Raises:
        LookupError: if a word is not in a prompt or not known to its tokenizer, a site not in the model, or a
            model reads no words.
        ValueError: for sites that hold no attention to the text, and for runs that cannot be made.

    >>> from denoscope.models.synthetic.tiny import tiny_sd
    >>> from denoscope.models.load import load
    >>> found = word_maps(load(tiny_sd()), ["a red cat"], ["cat"], seeds=[0], steps=2)
    >>> found.maps.dims, found.maps.shape
    (('sample', 'word', 'y', 'x'), (1, 1, 8, 8))
    """
    _check(when, time, size)
    when.check(len(model.steps(steps)), len(prompts), model.branch_names(guidance))
    with torch.no_grad():
        encoded = model.prompts(prompts)
    rows = range(len(encoded)) if when.rows is None else when.rows
    found, tokens = find_all([encoded[r] for r in rows], words)
    sums: Sums = {}
    watch = []
    for site in _reading(model, sites):
        picture, first = model.picture_and_text(site, len(encoded[0].tokens))
        part = (picture, [first + t for t in tokens])
        watch.append(Intervention(site, _adder(site, part, sums, time == "each"), when))
    run = trace(
        model,
        prompts,
        seeds=seeds,
        steps=steps,
        guidance=guidance,
        negative=negative,
        interventions=[*interventions, *watch],
        on_step=on_step,
        progress=progress,
    )
    latent = model.picture_grid
    heat = torch.stack([heat_of(list(layers.values()), latent, size or latent) for layers in sums.values()])
    kept = [s for s in run.steps if s in when]
    values = words_of(heat.cpu() / (len(kept) if time == "mean" else 1), found, tokens)
    return WordMaps(label(values, list(rows), run, kept if time == "each" else None), run)


@checked
def maps_from_trace(
    run: Trace,
    model: Model,
    words: Sequence[str] | None = None,
    *,
    time: Time = "mean",
    size: tuple[int, int] | None = None,
) -> WordMaps:
    """Map where each word was read in a run that is over, for example in a user's own call.

    Args:
        run: a trace of the rows that read the prompts, which holds some of ``model.reading_sites()``.
        model: the model that made it, in the size that it made.
        words: as in ``word_maps``.
        time: as in ``word_maps``, over the steps that were kept.
        size: height and width of the maps; None is the latents' own.

    Raises:
        LookupError: if a word is not in a prompt, or the trace holds no attention to the text.
        ValueError: for other rows than those that read the prompts, and where the prompts are not known.
    """
    _check(When(), time, size)
    sites = [s for s in model.reading_sites() if s in run]
    if not sites:
        first = str(model.reading_sites()[0])
        raise NotFoundError(f"the trace holds no attention to the text; trace sites like {first!r}")
    met = {b for line in run.account or () if line.site in sites for b in line.branches}
    every = list(range(len(run.prompts)))
    if not every or list(run.samples or every) != every or met - {"cond"}:
        raise UsageError("maps need the rows of all samples that read the prompt, and the prompts as texts")
    found, tokens = find_all(run.prompts, words)
    layers = []
    for site in sites:
        picture, start = model.picture_and_text(site, len(run.prompts[0].tokens))
        layers.append(run[site][:, :, :, picture][..., [start + t for t in tokens]].float())
    steps = range(len(run.kept_steps))
    latent = model.picture_grid if run.latents.ndim == 3 else (run.latents.shape[-2], run.latents.shape[-1])
    heat = torch.stack(
        [
            heat_of([functools.reduce(torch.add, x[some]) for x in layers], latent, size or latent)
            for some in ([[i] for i in steps] if time == "each" else [list(steps)])
        ]
    )
    values = words_of(heat / (len(steps) if time == "mean" else 1), found, tokens)
    return WordMaps(
        label(values, list(range(len(found))), run, run.kept_steps if time == "each" else None), run
    )


def _check(when: When, time: str, size: tuple[int, int] | None) -> None:
    if size is not None and (len(size) != 2 or not all(1 <= side <= LARGEST for side in size)):
        raise UsageError(
            f"size is {size}; it is the height and width of the maps, each from 1 up, like (64, 64)"
        )
    if time not in ("mean", "sum", "each"):
        raise UsageError(f"time is {time!r}; it is 'mean', 'sum' or 'each'")
    if when.branch != "cond":
        raise UsageError(f"word maps need the rows that read the prompt, branch 'cond', not {when.branch!r}")


def _reading(model: Model, sites: Sequence[Site | str] | Site | str | None) -> list[Site]:
    known = model.reading_sites()
    if sites is None:
        return known
    found = expand(model, sites)
    for site in found:
        if site not in known:
            raise UsageError(f"{site} holds no attention to the text; give sites like {str(known[0])!r}")
    if not found:
        raise UsageError(f"no sites to read attention from; give sites like {str(known[0])!r}")
    return found


def _adder(site: Site, part: tuple[slice, list[int]], sums: Sums, each: bool) -> Change:
    """Add up what the wanted tokens get, [sample, head, query, token], over steps or for each step.

    ``part``: the queries of the picture, and the keys of the wanted tokens.
    """
    picture, keys = part

    def add(x: Tensor, context: CallContext) -> None:
        step = context.step
        layers = sums.setdefault(step.index if each and step else 0, {})
        seen = x[:, :, picture][..., keys].float()
        layers[site] = layers[site] + seen if site in layers else seen

    return add
