"""Concept maps: where something is in a picture, whether or not the prompt speaks of it.

Joint attention: ConceptAttention (``passenger``). With the scores s of concept j at place i of the picture,

    map_j[i] = mean over layers and steps of  softmax over concepts j of  s_j[i]

Cross-attention has no text stream to ride in: concepts are keys there (``concept_keys``), and the map is the
share of attention that a concept's token gets among the tokens of its text, as word maps have it (OVAM).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from ...models.arguments import checked
from ...models.base import Model, Prompt
from ...models.errors import UsageError
from ...models.progress import Progress
from ...models.run.context import CallContext, When
from ...models.run.levels import Step
from ...models.site import Site
from ...probes.intervene import Probe
from .attention_maps import Sums, check_maps
from .concept_choice import Reading, Score, Settings, read_concepts
from .concept_result import ConceptMaps
from .heat import By, label, views_of, words_of
from .looking import look, plan_of, run_or_calls
from .passenger import Take

Time: TypeAlias = Literal["mean", "each"]


@checked
def concept_maps(  # noqa: PLR0913 - what one run is, and what of it is mapped
    model: Model,
    prompts: Sequence[str | Prompt],
    concepts: Sequence[str],
    *,
    seeds: Sequence[int],
    steps: int | None = None,
    guidance: float | None = None,
    negative: str = "",
    images: Float[Tensor, "sample ..."] | None = None,
    levels: Sequence[Step] | None = None,
    sites: Sequence[Site | str] | Site | str | None = None,
    when: When = When(),
    time: Time = "mean",
    by: By = "all",
    size: tuple[int, int] | None = None,
    score: Score | None = None,
    within: str = "{}",
    settings: Settings | None = None,
    interventions: Sequence[Probe] = (),
    progress: Progress | None = None,
) -> ConceptMaps:
    """Generate pictures, or look at real ones, and map where concepts are; the pictures stay as they are.

    Concepts read the picture and are read by nothing, so pictures equal those of a plain run to the bit. In
    joint attention a softmax compares the concepts of the list with one another: a map depends on the list,
    and concepts attend to each other. Give what else is in the picture too ("background").

    Args:
        model: with joint attention (Stable Diffusion 3, FLUX.1) or cross-attention to a text.
        prompts: one for each sample; ``""`` where nothing is known of a real picture.
        concepts: words or runs of words, each once.
        seeds: one for each sample; of the noise, for real pictures.
        steps: number of steps; None is 20.
        guidance: guidance scale; None is the model's default.
        negative: text of the unconditional branch.
        images: real pictures [sample, channel, height, width] in 0..1 in place of a run: each is noised to
            each level and looked at in one call of the network that reads its prompt.
        levels: of real pictures, made by ``model.step_at``; None is log-SNR 0 (the paper's t = 500 of 1000).
        sites: which attentions count, each alike; None is all of them, FLUX.1's single blocks left out.
        when: which steps (or levels, counted from 0) and samples to look at.
        time: ``"mean"`` over steps, or ``"each"``: one map for each.
        by: ``"all"`` is one map of all layers; ``"layer"`` one of each layer, ``"head"`` one of each head.
        size: height and width of the maps; None is the latents' own.
        score: ``"softmax"`` over the concepts, for each layer and step; ``"logit"``, what it is taken of: in
            joint attention o_x . o_c, summed over heads; in cross-attention q . k / sqrt(d), averaged over
            heads. ``"attention"``, in cross-attention alone: a share among the tokens of the concept's text.
            None is the published one: softmax in joint attention, attention in cross-attention.
        within: the text in which a concept is read: a template, or one text that holds them all. A word alone
            is an unusual text; with a caption for it, and that as prompt, maps are ``word_maps``.
        settings: ``"paper"``: the last 10 layers. Its own ablation has the mean of all above any of them, and
            ours is of all. ``"code"`` (FLUX.1): the last 4, the first token of a concept alone (which cuts
            longer words; ours is the mean of their scores), and zeros for the pooled text by which concepts'
            norms are scaled (ours is the prompt's, as the picture has it). The code for Stable Diffusion 3
            takes its picture from another pass, which reads the concepts in place of the prompt.
        interventions: what to change on the way; the maps show what is there after the change.
        progress: called with (done, total, what); without it a bar comes by itself.

    Raises:
        LookupError: for a concept that the tokenizer does not know or that is not in ``within``, a site not
            in the model, and a model that reads no words.
        ValueError: for an empty or repeated concept, one alone under a softmax, sites that hold no such
            attention, runs that cannot be made, and pictures of another size or range.

    >>> from denoscope.models.synthetic.tiny_families import tiny_sd3
    >>> found = concept_maps(load(tiny_sd3()), ["a red cat"], ["cat", "dog"], seeds=[0], steps=2)
    >>> found.maps.dims, found.maps.shape
    (('sample', 'concept', 'y', 'x'), (1, 2, 8, 8))
    """
    check_maps(when, time, by, size)
    if time not in ("mean", "each"):
        raise UsageError(f"time is {time!r}; it is 'mean' or 'each'")
    how = run_or_calls(images, steps=steps, guidance=guidance, negative=negative)
    plan, branches = plan_of(model, how, images, levels)
    when.check(len(plan), len(prompts), branches)
    kept = [s for s in plan if s in when]
    reading = read_concepts(model, concepts, sites, score, within, settings)
    sums: Sums = {}
    probes = reading.probes(_adder(reading, by, sums, time == "each"), when)
    run = look(model, prompts, [*interventions, *probes], seeds=seeds, how=how, images=images, levels=levels,
               progress=progress)  # fmt: skip
    latent = model.picture_grid
    views = [views_of(x, latent, size or latent, by, reading.score == "attention") for x in sums.values()]
    heat = torch.cat(views).cpu() / (len(kept) if time == "mean" else 1)
    rows = list(range(len(prompts)) if when.rows is None else when.rows)
    columns = list(range(heat.shape[2]))
    values = words_of(heat, [reading.columns] * len(rows), columns)
    maps = label(values, rows, run, kept if time == "each" else None, (by, reading.sites))
    shown = (run.images if images is None else images)[rows].detach().float().cpu()
    dims = ("sample", "channel", "height", "width")
    data = {"maps": maps.rename(word="concept"), "images": (dims, shown.numpy())}
    about = {**run.about, "method": "concept_maps", **reading.about, "within": within}
    return ConceptMaps(xr.Dataset(data, attrs=about))


def _adder(reading: Reading, by: By, sums: Sums, each: bool) -> Take:
    """Add up scores, [sample, head, place, column], over steps or for each step."""

    def take(site: Site, scores: Tensor, context: CallContext) -> None:
        if reading.joint and by != "head":
            scores = scores.sum(1, keepdim=True)
        if reading.score == "softmax":
            scores = scores.softmax(2)
        scores = scores.transpose(2, 3)
        step = context.step
        layers = sums.setdefault(step.index if each and step else 0, {})
        layers[site] = layers[site] + scores if site in layers else scores

    return take
