"""Path patching: what one place tells another, and how much of the picture goes that way.

Wang et al. 2022 (arXiv:2211.00593, section 3.1) and Goldowsky-Dill et al. 2023 (arXiv:2304.05969). Beside the
run that is scored (row 0) run, at the same latents,

    row 1    the same prompt, with the sender as row 3 has it and what is held as row 2 has it
    row 2    the same prompt, as it is
    row 3    the other prompt

and the receiver of row 0 is given what row 1 has there: it is told of the sender's change by the paths that
are not held, and nothing else of the run is. Published for one forward pass; here at each step of sampling,
at the run's own latents, so that what is given never comes from another picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch

from ...models.arguments import checked
from ...models.base import Model, Prompt
from ...models.errors import UsageError
from ...models.progress import Progress
from ...models.site import Site
from ...probes.intervene import Intervention
from ...probes.sweep.sweeping import SweepRun
from ..mediation.choice import copy_row, denoiser_sites
from ..mediation.corruption import Corruption, Noise
from ..mediation.runs import Restored, check_each_once, open_experiment
from ..mediation.tracing import Tracing
from ..metrics import Metric
from ..scores import Scores
from .scoring import shares

Sites = Sequence[Site | str] | Site | str
Group = tuple[Site, ...]


@checked
def path_effect(  # noqa: PLR0913  # one experiment, all its settings by name
    model: Model,
    prompts: Sequence[str],
    subject: str | Sequence[str],
    senders: Sites,
    receivers: Sequence[Site | str | Sequence[Site | str]] | Site | str,
    *,
    seeds: Sequence[int],
    metric: Metric,
    held: Sites | None = None,
    state: Literal["clean", "corrupted"] = "clean",
    corruption: Corruption = Noise(),  # noqa: B008  # a frozen value
    steps: int = 20,
    guidance: float | None = None,
    batch: int = 16,
    progress: Progress | None = None,
) -> Scores:
    """Return what each sender does through each receiver alone, as a share of the total effect.

    A receiver that runs before the sender has exactly 0. All that read the sender, told together and with
    nothing held, have the whole effect of the sender. Where all is linear, the direct paths to all that run
    after it, one at a time and the output among them, add up to that as well.

    Args:
        model: an opened model with a text encoder.
        prompts: clean texts.
        subject: the words to take out, or one for each prompt.
        senders: sites of the denoiser whose state is put in; ``*/in/text`` is the text itself.
        receivers: sites of the denoiser that are told; a list inside the list are several told
            together, which do not hear of each other. For what an attention is told as keys, values or
            queries, name its ``k_proj``, ``v_proj`` or ``q_proj``.
        seeds: each prompt is run with each seed.
        metric: scores finished runs (``analysis.metrics``).
        held: what stays as it was between sender and receiver. None is all that each layer adds to the
            stream, as published: the direct path alone. ``()`` holds nothing: all paths.
        state: ``"clean"`` puts the sender's clean state into the corrupted run: the share that it brings
            back. ``"corrupted"`` puts its corrupted state into the clean run: the share that is lost.
        corruption: how the subject is taken out.
        steps: number of sampling steps.
        guidance: guidance scale; None is the model's default.
        batch: samples in one batch of the denoiser; each run takes four.
        progress: called with (done, total, what); without it a bar comes by itself.

    Returns:
        Scores with dims site (the sender), receiver, prompt, seed, draw.

    Raises:
        ValueError: for sites outside the denoiser, a sender that is its own receiver, a corruption that
            changes nothing, and runs that cannot be made.
        LookupError: for a subject that is not in its prompt, and unknown sites.
    """
    if state not in ("clean", "corrupted"):
        raise UsageError(f"state is {state!r}; it is 'clean' (put into the corrupted run) or 'corrupted'")
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
    given, told = denoiser_sites(model, senders), _groups(model, receivers)
    between = [] if isinstance(held, list | tuple) and not held else denoiser_sites(model, held)
    paths = _paths(model, given, told, between, experiment.clean[0])

    def run(p: int, seed: int) -> Restored:
        clean = experiment.clean[p]
        ends = [(c, clean) if state == "clean" else (clean, c) for c in experiment.corrupted[p]]
        runs = [[SweepRun(a, seed, path, (a, a, b) if path else ()) for a, b in ends] for path in paths]
        return Restored(runs)

    names = [str(g[0]) if len(g) == 1 else f"{g[0]} and {len(g) - 1} more" for g in told]
    experiment.about.update(method="path_effect", state=state, held=[str(s) for s in between])
    found = Tracing(experiment, given, ("receiver", {"receiver": names}), run, 3).run(progress)
    values = found.data["restored"]
    effect = values - found.corrupted if state == "clean" else found.clean - values
    effect = effect.transpose(*values.dims).assign_attrs(found.data.attrs)
    return shares(effect, found.clean - found.corrupted, f"the corruption {corruption!r}")


def _groups(model: Model, receivers: Any) -> list[Group]:
    """The receivers, each one site or several together."""
    given = [receivers] if isinstance(receivers, Site | str) else list(receivers)
    found: list[Group] = []
    for each in given:
        if isinstance(each, Site | str):
            found += [(site,) for site in denoiser_sites(model, each)]
        else:
            found.append(tuple(denoiser_sites(model, list(each))))
    check_each_once("receivers", found)
    return found


def _paths(
    model: Model, senders: Sequence[Site], receivers: Sequence[Group], held: Sequence[Site], prompt: Prompt
) -> list[tuple[Intervention, ...]]:
    """What is done for each sender and receiver, senders first: nothing where it runs before the sender."""
    for group in receivers:
        if both := [s for s in group if s in senders]:
            raise UsageError(f"{both[0]} is sender and receiver; leave it out of one of them")
    when = _order(model, [*senders, *(s for group in receivers for s in group)], prompt)
    return [
        _path(model, sender, group, held) if any(when[s] > when[sender] for s in group) else ()
        for sender in senders
        for group in receivers
    ]


def _order(model: Model, sites: Sequence[Site], prompt: Prompt) -> dict[Site, int]:
    """When each site is reached in a call: who runs before the sender hears nothing of it."""
    found: dict[Site, int] = {}

    def look(site: Site) -> Intervention:
        return Intervention(site, lambda *_: found.update({site: len(found)}))

    step = model.levels[len(model.levels) // 2]
    with torch.no_grad():
        probes = [look(site) for site in dict.fromkeys(sites)]
        model.denoise(model.noise([0]), step, [prompt], interventions=probes)
    return found


def _path(model: Model, sender: Site, receivers: Group, held: Sequence[Site], /) -> tuple[Intervention, ...]:
    """What makes row 0 the run in which the receivers alone were told; in one place, in this order."""
    entry = model.input_site
    shown = tuple(Intervention(entry, copy_row(0, row)) for row in (1, 2, 3))
    told = tuple(Intervention(site, copy_row(1, 0)) for site in receivers)
    still = tuple(Intervention(site, copy_row(2, 1)) for site in held if site not in (sender, entry))
    return (*shown, Intervention(sender, copy_row(3, 1)), *told, *still)
