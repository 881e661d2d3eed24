"""Gradients and games: what a number owes to words, latents or activations, by the methods of captum."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ....models.arguments import checked
from ....models.base import Model
from ....models.errors import UsageError
from ....models.progress import Progress, showing
from ....models.run.levels import Step
from ....models.run.prediction import scales
from ....models.run.sampling import Sampling
from ....models.site import Site
from ....models.store.provenance import provenance
from ...mediation.runs import check_each_once
from ...metrics import Metric
from .attribution_result import Attribution
from .deriving import Method
from .gathering import labelled
from .scalars import Moment, Neuron, check_scalar
from .targets import Baseline, places_named, players_of


@checked
def attribute(  # noqa: PLR0913  # one experiment, all its settings by name
    model: Model,
    prompts: Sequence[str],
    *,
    of: Metric | Neuron | str,
    to: str | Site | Sequence[Site | str],
    method: str = "integrated_gradients",
    seeds: Sequence[int],
    images: Float[Tensor, "prompt ..."] | None = None,
    at: Step | None = None,
    against: str = "",
    baseline: Baseline | None = None,
    words: Sequence[str] | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    points: int = 32,
    orders: int | None = 32,
    batch: int = 8,
    progress: Progress | None = None,
) -> Attribution:
    """Return what a number owes to each word, each place of the latents, or each site, by gradients or games.

    The number is of the final latents of a run, each step of which is computed again for its gradients; or,
    with ``images`` and ``at``, of the clean latents that one call of the network predicts of noised pictures.

    Args:
        model: an opened model that reads text.
        prompts: texts.
        of: a metric (``clip_score(judge, "a cat")``, ``judge_probability(...)``, a function of an Outcome);
            ``"fit"``, minus the mean square by which the prediction misses the picture; ``"shift"``, the mean
            square by which it differs from that for ``against``; or a ``Neuron``.
        to: ``"words"``, rows of the encoded text as the denoiser is given them (a pooled text stays);
            ``"latents"``, what the network is given first; or sites of the denoiser, each by itself, in the
            rows that read the prompt.
        method: ``"gradient"``: lengths, over channels, of the gradient; ``"gradient_times_input"``;
            ``"integrated_gradients"``; and of words ``"shapley"`` and ``"ablation"``, where absent words have
            the rows of the baseline.
        seeds: each prompt is run with each seed; of the noise, for pictures.
        images: one for each prompt, [prompt, channel, height, width] in 0..1.
        at: the noise level at which they are looked at, by ``model.step_at``.
        against: the text that is the baseline of words and sites, and that "shift" is from.
        baseline: where paths begin: ``"against"``, rows or activations of that text, or ``"zero"``. None is
            against for words and sites, and zero for latents.
        words: those that are told apart, each with all its tokens; None is all of the prompt. Rows of no such
            word are players too: "(begin)", "(other words)", "(end)", "(padding)".
        steps: number of sampling steps; None is 20.
        guidance: guidance scale; None is the model's default in runs, and none in single calls.
        points: of the path of integrated gradients.
        orders: of players for Shapley values, drawn; None is all, of at most 7 players.
        batch: rows of integrated gradients in one batch.
        progress: called with (done, total, what); without it a bar comes by itself.

    Returns:
        An Attribution, in units of the number. Integrated gradients and Shapley values add up to
        ``score - reference``; ``remainder`` says how well.

    Raises:
        ValueError: for unknown methods and scalars, near misses named; a number without gradient; images
            without ``at`` and the other way round, of another size or range; zero steps, points or orders.
        LookupError: for sites and words that there are not, and a model that reads no text.

    Sources: Sundararajan et al. 2017 (arXiv:1703.01365), eq. 1; Shapley 1953; captum's implementations.

    >>> from denoscope.analysis.metrics import latent_distance
    >>> def size(outcome):
    ...     return outcome.latents.square().flatten(1).mean(1)
    >>> from denoscope.models.synthetic.tiny import tiny_sd
    >>> found = attribute(load(tiny_sd()), ["a cat"], of=size, to="words", seeds=[0], steps=2, points=8)
    >>> [str(w) for w in found.values["word"].values]
    ['a', 'cat', '(begin)', '(end)', '(padding)']
    """
    name = check_scalar(of, model, images is not None)
    places = places_named(model, to)
    how = Method(method, places, baseline, points, orders, batch)
    settings = _settings(model, images, at, steps, guidance)
    check_each_once("prompts", prompts)
    check_each_once("seeds", seeds)
    if images is not None and (images.ndim < 1 or len(images) != len(prompts)):
        raise UsageError(
            f"images has shape {tuple(images.shape)}; give one for each of {len(prompts)} prompts"
        )
    with torch.no_grad():
        *encoded, other = model.encode([*prompts, against])
        clean = None if images is None else model.encode_image(images)
    players = [players_of(p, words) if places == "words" else {} for p in encoded]
    for each in players:
        how.check_players(len(each))
    found, cells = [], list(product(range(len(prompts)), seeds))
    with showing(progress) as show:
        for i, (p, seed) in enumerate(cells):
            own = None if clean is None else clean[p : p + 1]
            first = _first(model, own, at, seed, settings)
            moment = Moment(model, encoded[p], other, seed, first, at, own, settings)
            found.append(how.attributed(moment, of, players[p]))
            show(i + 1, len(cells), "prompts and seeds")
    about = provenance(
        model, of=name, **how.told, against=against, at=None if at is None else at.t, **_told(settings)
    )
    return Attribution(labelled(found, list(prompts), list(seeds), about))


def _settings(
    model: Model, images: Tensor | None, at: Step | None, steps: int | None, guidance: float | None
) -> dict[str, Any]:
    if (images is None) != (at is None):
        raise UsageError("images and at go together: pictures, and the noise level at which they are seen")
    if at is None:
        how = Sampling(steps=20 if steps is None else steps, guidance=guidance)
        model.steps(how)
        return {"steps": how.steps, "guidance": model.default_guidance if guidance is None else guidance}
    if steps is not None:
        raise UsageError("steps are of a run, but pictures are looked at in one call; leave them out")
    return {"guidance": guidance}


def _told(settings: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in settings.items() if v is not None}


def _first(  # noqa: PLR0917  # of one prompt and seed
    model: Model, clean: Tensor | None, at: Step | None, seed: int, settings: dict[str, Any]
) -> Tensor:
    """What the network is given first: the run's noise, or a noised picture."""
    if clean is None or at is None:
        return model.start([seed], settings["steps"]).latents
    a, s = scales(model.scheduler, at, clean)
    noised: Tensor = a * clean + s * model.noise([seed])
    return noised
