"""The stages of an investigation: each returns a labelled dataset."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import xarray as xr
from torch import Tensor

from ..analysis.attribution.attention_maps import word_maps
from ..analysis.edit_evaluation.evaluate import Effect, effect
from ..analysis.mediation.corruption import Noise
from ..analysis.mediation.tracing import Mediation, trace_denoiser, trace_text
from ..editing.edit import Edit
from ..editing.methods.quickfix import TEMPLATES, quickfix
from ..models.base import State
from ..report.causal_map import CausalMap
from ..report.images import to_array
from .case import Case, Setup, open_case, prepare
from .wording import Wording

Note = Callable[[int, int], None]
"""Called with (done, total)."""


def look(setup: Setup, note: Note) -> xr.Dataset:
    """Pictures, what they look like on the way, and where each word was read."""
    model, steps = setup.model, len(setup.model.steps(setup.case.steps))
    noisy: list[Tensor] = []
    clean: list[Tensor] = []

    def watch(state: State) -> None:
        noisy.append(model.decode(state.seen))
        clean.append(model.decode(model.to_x0(state.seen, state.output, state.step)))
        note(state.step.index + 1, steps)

    maps = word_maps(model, [setup.case.prompt] * len(setup.seeds), **setup.run, progress=watch)
    return xr.Dataset(
        {
            "pictures": to_array(maps.images),
            "noisy": xr.concat([to_array(x) for x in noisy], "step"),
            "predicted": xr.concat([to_array(x) for x in clean], "step"),
            "words": maps.maps.drop_vars("prompt").rename(y="map_y", x="map_x"),
        },
        coords={"step": range(steps), "seed": ("sample", setup.seeds)},
    )


def text_cause(setup: Setup, note: Note, encoder: str | None = None) -> xr.Dataset:
    """Causal map over a text encoder: layer x kind x token; of several, over the one that carries most.

    Its attribute ``carried`` says how much each of several encoders carries, in JSON.
    """
    encoders, carried = setup.model.text_encoders, {}
    if encoder is None and len(encoders) > 1:
        carried = {name: _carried(setup, note, name) for name in encoders}
    chosen = encoder or max(encoders, key=lambda name: carried.get(name, 0.0))
    return _trace(setup, note, chosen).data.assign_attrs(carried=json.dumps(carried))


def _carried(setup: Setup, note: Note, encoder: str) -> float:
    """Share of the effect that comes back when all that one encoder says is restored."""
    words = setup.model.encode([setup.case.prompt])[0].of(encoder)
    if not words.reads(setup.case.about):
        return 0.0
    depth = len(setup.model.sites(f"{encoder}/layer.*/resid.post"))
    everything = {
        "kinds": ["resid.post"],
        "layers": [0],
        "window": 2 * depth,
        "tokens": [range(len(words.tokens))],
    }
    share = float(_trace(setup, note, encoder, **everything).normalised.mean().max())
    return share if math.isfinite(share) else 0.0


def _trace(setup: Setup, note: Note, encoder: str, **states: Any) -> Mediation:
    q = setup.case
    return trace_text(
        setup.model,
        [q.prompt],
        q.about,
        metric=setup.metric,
        corruption=Noise(draws=q.draws),
        encoder=encoder,
        **states,
        **setup.run,
        progress=note,
    )


def denoiser_cause(setup: Setup, note: Note) -> xr.Dataset:
    """Causal map over the denoiser: site x window of steps."""
    q = setup.case
    n = len(setup.model.steps(q.steps))
    halves = [range(n // 2), range(n // 2, n)] if n > 1 else [range(n)]
    found = trace_denoiser(
        setup.model,
        [q.prompt],
        q.about,
        metric=setup.metric,
        corruption=Noise(draws=1),
        windows=halves,
        **setup.run,
        progress=note,
    )
    return found.data


def make_edit(setup: Setup, cause: Mediation) -> Edit:
    """Edit the text-encoder state whose restoration came nearest to the clean run."""
    q = setup.case
    site = CausalMap.of(cause).ranked()["site"][0]
    templates = list(dict.fromkeys([*setup.wording.efficacy, *TEMPLATES]))
    request = {q.about: q.change_to}
    return quickfix(setup.model, request, site=site, templates=templates, keep=setup.wording.keep)


def check(setup: Setup, edit: Edit, note: Note) -> xr.Dataset:
    """Pictures before and after the edit under the same seeds, and what the judge says about them."""
    questions = setup.wording.questions()
    judge = setup.judge or _Nobody()
    found: Effect = effect(setup.model, edit.applied, questions, judge=judge, **setup.run, progress=note)
    pictures = {
        name: to_array(images.flatten(0, 1)).rename(sample="picture") for name, images in found.images.items()
    }
    return found.data.assign(pictures).assign_attrs(judged=int(setup.judge is not None))


class _Nobody:
    """Stands where no judge ships with the model: only pixels are compared."""

    def similarity(self, images: Tensor, texts: Sequence[str]) -> Tensor:
        """No opinion."""
        return torch.zeros(len(images), len(texts))


def locate(case: Case, inside: str, note: Note) -> Mediation:
    """Find the cause alone, in a text encoder or in the denoiser; nothing is changed.

    Args:
        case: prompt, word and settings.
        inside: a component: ``"text_encoder"``, ``"text_encoder_2"``, ``"unet"``, ``"transformer"``.
        note: called with (done, total).

    Raises:
        LookupError: for an unknown model or component, or a word that is not in the prompt.
        ValueError: for runs that cannot be made.
    """
    setup = Setup(case, *open_case(case), Wording(case.about, "", (), (), {}))
    encoders, denoiser = setup.model.text_encoders, setup.model.entry.component
    if inside not in (*encoders, denoiser):
        raise LookupError(f"{case.model} has no {inside!r}; it has {', '.join((*encoders, denoiser))}")
    if inside == denoiser:
        return Mediation(denoiser_cause(setup, note))
    return Mediation(text_cause(setup, note, inside))


def evaluate(case: Case, edit: Edit, note: Note) -> Effect:
    """Check an edit alone.

    Raises:
        LookupError: for an unknown model, or a word that is not in the prompt.
        ValueError: for an edit of other weights, and for runs that cannot be made.
    """
    setup = prepare(case)
    if setup.judge is None:
        raise ValueError(
            f"no judge ships with {case.model!r}, so nobody can say what its pictures show; take 'emoji'"
        )
    with edit.applied(setup.model):
        pass  # is it for these weights?
    return Effect(check(setup, edit, note), {})
