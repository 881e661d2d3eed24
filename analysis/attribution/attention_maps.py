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
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ...models.adapter import LARGEST
from ...models.arguments import checked
from ...models.base import Model, Prompt, State
from ...models.errors import NotFoundError, UsageError
from ...models.progress import Progress
from ...models.run.context import CallContext, When
from ...models.run.levels import Step
from ...models.site import Site
from ...probes.intervene import Change, Intervention
from ...probes.trace import Trace, expand
from .heat import By, check_by, find_all, label, views_of, words_of
from .looking import look, plan_of, run_or_calls
from .published import daam_layers
from .word_result import WordMaps

Time = Literal["mean", "sum", "each"]
Sums = dict[int, dict[Site, Tensor]]


@checked
def word_maps(  # noqa: PLR0913 - what one run is, and what of it is mapped
    model: Model,
    prompts: Sequence[str | Prompt],
    words: Sequence[str] | None = None,
    *,
    seeds: Sequence[int],
    steps: int | None = None,
    guidance: float | None = None,
    negative: str = "",
    images: Float[Tensor, "sample ..."] | None = None,
    levels: Sequence[Step] | None = None,
    sites: Sequence[Site | str] | Site | str | None = None,
    when: When = When(),
    time: Time | None = None,
    by: By = "all",
    size: tuple[int, int] | None = None,
    settings: Literal["code"] | None = None,
    interventions: Sequence[Intervention] = (),
    on_step: Callable[[State], None] | None = None,
    progress: Progress | None = None,
) -> WordMaps:
    """Generate pictures, or look at real ones, and map where each word is read.

    Args:
        model: a model that reads prompts.
        prompts: one for each sample.
        words: words, or runs of words, that every prompt has; None takes all words of each prompt that the
            tokenizer knows, and warns of others.
        seeds: one for each sample.
        steps: number of steps; None is 20.
        guidance: guidance scale; None is the model's default.
        negative: text of the unconditional branch.
        images: real pictures [sample, channel, height, width] in 0..1 in place of a run: each is noised to
            each level and looked at in one call of the network that reads its prompt.
        levels: of real pictures, made by ``model.step_at``; None is log-SNR 0.
        sites: which attentions to the text count, each head alike. None is all of them.
        when: which steps (or levels, counted from 0) and samples to look at.
        time: ``"sum"`` over steps (as published), ``"mean"`` (the same divided by the number of steps), or
            ``"each"``: one map for each step, by the same formula. None is the mean.
        by: ``"all"`` is one map of all heads; ``"layer"`` one of each layer, ``"head"`` one of each head.
        size: height and width of the maps; None is the latents' own.
        settings: ``"code"`` are those of the published code: no middle block, no layer at an eighth of the
            latents' side, sums over steps. Its authors left these out, for their maps are a few cells wide;
            that drops what they say of a picture's subject.
        interventions: what to change on the way; the maps show attention after the change.
        on_step: called with each State.
        progress: called with (done, total, what); without it a bar comes by itself.

    Raises:
        LookupError: if a word is not in a prompt or not known to its tokenizer, a site not in the model, or a
            model reads no words.
        ValueError: for sites that hold no attention to the text, runs that cannot be made, pictures of
            another size or range, and settings beside what they set.

    >>> from denoscope.models.synthetic.tiny import tiny_sd
    >>> from denoscope.models.load import load
    >>> found = word_maps(load(tiny_sd()), ["a red cat"], ["cat"], seeds=[0], steps=2)
    >>> found.maps.dims, found.maps.shape
    (('sample', 'word', 'y', 'x'), (1, 1, 8, 8))
    """
    time = _settled(sites, time, settings)
    check_maps(when, time, by, size)
    how = run_or_calls(images, steps=steps, guidance=guidance, negative=negative)
    plan, branches = plan_of(model, how, images, levels)
    when.check(len(plan), len(prompts), branches)
    kept = [s for s in plan if s in when]
    with torch.no_grad():
        encoded = model.prompts(prompts)
    rows = range(len(encoded)) if when.rows is None else when.rows
    found, tokens = find_all([encoded[r] for r in rows], words)
    reading = daam_layers(model) if settings else _reading(model, sites)
    sums: Sums = {}
    watch = []
    for site in reading:
        picture, first = model.picture_and_text(site, len(encoded[0].tokens))
        part = (picture, [first + t for t in tokens])
        watch.append(Intervention(site, _adder(site, part, sums, time == "each"), when))
    probes = [*interventions, *watch]
    run = look(model, prompts, probes, seeds=seeds, how=how, images=images, levels=levels, on_step=on_step,
               progress=progress)  # fmt: skip
    latent = model.picture_grid
    heat = torch.cat([views_of(layers, latent, size or latent, by) for layers in sums.values()])
    values = words_of(heat.cpu() / (len(kept) if time == "mean" else 1), found, tokens)
    return WordMaps(label(values, list(rows), run, kept if time == "each" else None, (by, reading)), run)


@checked
def maps_from_trace(
    run: Trace,
    model: Model,
    words: Sequence[str] | None = None,
    *,
    time: Time = "mean",
    by: By = "all",
    size: tuple[int, int] | None = None,
) -> WordMaps:
    """Map where each word was read in a run that is over, for example in a user's own call.

    Args:
        run: a trace of the rows that read the prompts, which holds some of ``model.reading_sites()``.
        model: the model that made it, in the size that it made.
        words: as in ``word_maps``.
        time: as in ``word_maps``, over the steps that were kept.
        by: as in ``word_maps``.
        size: height and width of the maps; None is the latents' own.

    Raises:
        LookupError: if a word is not in a prompt, or the trace holds no attention to the text.
        ValueError: for other rows than those that read the prompts, and where the prompts are not known.
    """
    check_maps(When(), time, by, size)
    sites = [s for s in model.reading_sites() if s in run]
    if not sites:
        first = str(model.reading_sites()[0])
        raise NotFoundError(f"the trace holds no attention to the text; trace sites like {first!r}")
    met = {b for line in run.account or () if line.site in sites for b in line.branches}
    every = list(range(len(run.prompts)))
    if not every or list(run.samples or every) != every or met - {"cond"}:
        raise UsageError("maps need the rows of all samples that read the prompt, and the prompts as texts")
    found, tokens = find_all(run.prompts, words)
    layers = {}
    for site in sites:
        picture, start = model.picture_and_text(site, len(run.prompts[0].tokens))
        layers[site] = run[site][:, :, :, picture][..., [start + t for t in tokens]].float()
    steps = range(len(run.kept_steps))
    latent = model.picture_grid if run.latents.ndim == 3 else (run.latents.shape[-2], run.latents.shape[-1])
    heat = torch.cat(
        [
            views_of({s: functools.reduce(torch.add, x[some]) for s, x in layers.items()}, latent,
                     size or latent, by)
            for some in ([[i] for i in steps] if time == "each" else [list(steps)])
        ]
    )  # fmt: skip
    values = words_of(heat / (len(steps) if time == "mean" else 1), found, tokens)
    each = run.kept_steps if time == "each" else None
    return WordMaps(label(values, list(range(len(found))), run, each, (by, sites)), run)


def _settled(sites: object, time: Time | None, settings: str | None) -> Time:
    """Return what is made of the steps."""
    if settings not in (None, "code"):
        raise UsageError(f"settings is {settings!r}; it is 'code', the published code's, or None")
    if settings and (sites is not None or time is not None):
        raise UsageError("settings='code' says which sites and time; leave them out")
    return "sum" if settings else time or "mean"


def check_maps(when: When, time: str, by: str, size: tuple[int, int] | None) -> None:
    """Raise ValueError for maps that cannot be made."""
    check_by(by)
    if size is not None and (len(size) != 2 or not all(1 <= side <= LARGEST for side in size)):
        raise UsageError(
            f"size is {size}; it is the height and width of the maps, each from 1 up, like (64, 64)"
        )
    if time not in ("mean", "sum", "each"):
        raise UsageError(f"time is {time!r}; it is 'mean', 'sum' or 'each'")
    if when.branch != "cond":
        raise UsageError(f"maps need the rows that read the prompt, branch 'cond', not {when.branch!r}")


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
