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

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ...models.base import Model, Prompt, State
from ...models.run.context import CallContext, When
from ...models.run.levels import Step
from ...models.site import Site
from ...probes.intervene import Change, Intervention
from ...probes.trace import Trace, expand, trace

Time = Literal["mean", "sum", "each"]
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
    progress: Callable[[State], None] | None = None,
) -> WordMaps:
    """Generate pictures and map where each word was read.

    Args:
        model: a model that reads prompts.
        prompts: one for each sample.
        words: words, or runs of words, that every prompt has; None takes all words of each prompt.
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
        progress: called with each State.

    Raises:
        LookupError: if a word is not in a prompt, a site not in the model, or a model reads no words.
        ValueError: for sites that hold no attention to the text, and for runs that cannot be made.

    >>> from denoscope.models.synthetic.tiny import tiny_sd
    >>> from denoscope.models.load import load
    >>> found = word_maps(load(tiny_sd()), ["a red cat"], ["cat"], seeds=[0], steps=2)
    >>> found.maps.dims, found.maps.shape
    (('sample', 'word', 'y', 'x'), (1, 1, 8, 8))
    """
    _check(prompts, words, when, time)
    when.check(len(model.steps(steps)), len(prompts), model.branch_names(guidance))
    with torch.no_grad():
        encoded = model.prompts(prompts)
    rows = range(len(encoded)) if when.rows is None else when.rows
    found = [_find(encoded[r], words) for r in rows]
    tokens = sorted({i for places in found for at in places.values() for i in at})
    if not tokens:
        raise ValueError(f"there are no words to map in the prompts {[p.text for p in encoded]}")
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
        progress=progress,
    )
    latent = model.picture_grid
    heat = torch.stack([_heat(list(layers.values()), latent, size or latent) for layers in sums.values()])
    kept = [s for s in run.steps if s in when]
    values = _words_of(heat.cpu() / (len(kept) if time == "mean" else 1), found, tokens)
    return WordMaps(_label(values, list(rows), run, kept if time == "each" else None), run)


def _check(prompts: object, words: object, when: When, time: str) -> None:
    for name, value in (("prompts", prompts), ("words", words)):
        if isinstance(value, str):
            raise TypeError(f"{name} is the single string {value!r}; give a list: [{value!r}]")
    if time not in ("mean", "sum", "each"):
        raise ValueError(f"time is {time!r}; it is 'mean', 'sum' or 'each'")
    if when.branch != "cond":
        raise ValueError(f"word maps need the rows that read the prompt, branch 'cond', not {when.branch!r}")


def _find(prompt: Prompt, words: Sequence[str] | None) -> dict[str, list[int]]:
    """Return the tokens of each word; those of one word in capitals and small letters together."""
    names = dict.fromkeys(w.lower() for w in prompt.words) if words is None else words
    return {name: prompt.find(name) for name in names}


def _reading(model: Model, sites: Sequence[Site | str] | Site | str | None) -> list[Site]:
    known = model.reading_sites()
    if sites is None:
        return known
    found = expand(model, sites)
    for site in found:
        if site not in known:
            raise ValueError(f"{site} holds no attention to the text; give sites like {str(known[0])!r}")
    if not found:
        raise ValueError(f"no sites to read attention from; give sites like {str(known[0])!r}")
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


def _heat(layers: Sequence[Tensor], latent: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Return [sample, token, y, x]: resize, cut off negatives, average over heads of all layers.

    The cut comes before the average, head by head: the other order differs by some 5 %.
    """
    total, heads = torch.zeros(()), 0
    for probs in layers:
        grid = _grid(probs.shape[2], latent)
        for head in probs.unbind(1):
            low = head.transpose(1, 2).reshape(len(head), -1, *grid)
            maps = F.interpolate(low, size, mode="bicubic")
            total, heads = maps.clamp(min=0) + total.to(maps), heads + 1
    return total / heads


def _grid(queries: int, latent: tuple[int, int]) -> tuple[int, int]:
    """Return height and width of a layer; each level of a UNet halves the latents, rounding up."""
    height, width = latent
    while height * width > queries:
        height, width = -(-height // 2), -(-width // 2)
    if height * width != queries:
        raise ValueError(f"{queries} queries are no halving of latents {latent}; give other sites")
    return height, width


def _words_of(
    heat: Float[Tensor, "step sample token y x"], found: Sequence[Mapping[str, list[int]]], tokens: list[int]
) -> dict[str, Float[Tensor, "step sample y x"]]:
    """Return the map of each word: the mean over its tokens, NaN for samples that do not have it."""
    absent = torch.full_like(heat[:, 0, 0], float("nan"))

    def of(word: str, sample: int) -> Tensor:
        picked = [tokens.index(t) for t in found[sample].get(word, ())]
        return heat[:, sample, picked].mean(1) if picked else absent

    words = dict.fromkeys(w for places in found for w in places)
    return {w: torch.stack([of(w, i) for i in range(len(found))], 1) for w in words}


def _label(
    values: Mapping[str, Tensor], rows: list[int], run: Trace, each: Sequence[Step] | None
) -> xr.DataArray:
    maps = xr.DataArray(
        torch.stack(list(values.values()), 2).numpy(),
        dims=("step", "sample", "word", "y", "x"),
        coords={
            "sample": rows,
            "word": list(values),
            "prompt": ("sample", [run.prompts[r].text for r in rows]),
            "seed": ("sample", [run.seeds[r] for r in rows]),
        },
        name="word_maps",
    )
    if each is None:
        return maps[0]
    return maps.assign_coords(step=[s.index for s in each], sigma=("step", [s.sigma for s in each]))
