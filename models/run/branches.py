"""One call of the network for all guidance branches, or one for each: here is known which rows are whose."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor

from ..adapter import Adapter
from ..errors import UsageError
from ..guidance.parts import Combined, GuidanceBranch, GuidanceContext, names
from ..guidance.value import Guidance
from ..places.intervention import Intervention
from ..places.refuse import refuse_memory
from ..text.encoders import chunks_needed
from ..text.options import TextOptions, chosen_options
from ..text.prompt import Prompt
from .context import Branch, Call
from .levels import Step

Sizes: TypeAlias = Mapping[str, tuple[int, int]]


@dataclass(frozen=True, eq=False)
class Reading:
    """The branches of a run and what each reads, one Prompt a sample."""

    guidance: Guidance
    branches: Mapping[Branch, GuidanceBranch]
    prompts: Mapping[Branch, Sequence[Prompt]]


@dataclass(frozen=True, eq=False)
class Guided:
    """What the network said in all branches, what the guidance made of it, and the rows that it cost."""

    combined: Combined
    outputs: Mapping[Branch, Tensor]
    rows: int


def branch_interventions(
    guidance: Guidance, model: Adapter, steps: Sequence[Step]
) -> tuple[Intervention, ...]:
    """Return what the branches of a guidance change of themselves, of those that any of the steps needs."""
    needed = _wanted(guidance, steps, {})
    return tuple(
        replace(i, when=replace(i.when, branch=branch.name))
        for branch in guidance.branches(model)
        for i in branch.interventions
        if needed is None or branch.name in needed
    )


def read(
    model: Adapter,
    guidance: Guidance,
    prompts: Sequence[str | Prompt],
    negative: str | Sequence[str | Prompt] = "",
    *,
    text: TextOptions | None = None,
    sizes: tuple[Sizes, Sizes] = ({}, {}),
) -> Reading:
    """Encode what every branch of a run reads.

    Args:
        model: an opened model.
        guidance: which branches there are.
        prompts: one for each sample.
        negative: what the branches of "negative_prompts" read: one for all samples, or one a sample.
        text: how texts are read; what is encoded already was read in the same way.
        sizes: what the denoiser is told of sizes beside the prompts, and beside the negative prompts.

    Raises:
        ValueError: for negative prompts or sizes that cannot act, or whose number does not fit, and for
            prompts that were encoded in another way.
    """
    branches = guidance.branches(model)
    of = dict(zip(names(branches), branches, strict=True))
    text = text or {}
    if any(negative) and not any(b.reads == "negative_prompts" for b in branches):
        raise UsageError(
            f"the negative prompt {negative!r} cannot act: {guidance} of {model.name} has no branch that "
            "reads it; set guidance above 1 (on models told theirs: CFG(scale, true_scale)), or leave it out"
        )
    n = len(prompts)
    told, negative_told = sizes
    reads = [[] if b.reads == "prompts" else _each(b, negative) for b in branches]
    text = settled(model, text, [*prompts, *(p for some in reads for p in some)])
    unskipped = text.copy()  # the pipelines read negative prompts to the last layer
    unskipped.pop("clip_skip", None)
    cond = _told(_encoded(model, prompts, "cond", n, text), told)
    found: dict[Branch, Sequence[Prompt]] = {}
    for name, branch in of.items():
        if branch.reads == "prompts":
            found[name] = cond
        elif branch.reads == "negative_prompts":
            found[name] = _told(_encoded(model, negative, name, n, unskipped), negative_told)
        else:
            one = len(branch.reads) == 1 and not isinstance(branch.reads, str)
            own = list(branch.reads) * n if one else branch.reads
            found[name] = _told(_encoded(model, own, name, n, text), told)
    lengths = {len(p.embeds) for name, some in found.items() if of[name].network is None for p in some}
    if len(lengths) > 1:
        raise UsageError(
            f"prompts of one run have {sorted(lengths)} tokens; set long_prompts='chunks', and encode those "
            f"that are given encoded with long_prompts={max(lengths) // min(lengths)}"
        )
    return Reading(guidance, of, found)


def _each(branch: GuidanceBranch, negative: str | Sequence[str | Prompt]) -> Sequence[str | Prompt]:
    """What a branch reads, where it is not the prompts."""
    reads = negative if branch.reads == "negative_prompts" else branch.reads
    return [reads] if isinstance(reads, str) else reads


def settled(model: Adapter, text: TextOptions, prompts: Sequence[str | Prompt]) -> TextOptions:
    """Return how texts of one run are read: with chunks, all are as long as the longest.

    Raises:
        ValueError: for a choice that the model does not leave.
    """
    chosen_options(model._encode, model.name, text)
    if text.get("long_prompts") != "chunks":
        return text
    return {**text, "long_prompts": chunks_needed(model.pipe.tokenizer, prompts)}


def _told(prompts: Sequence[Prompt], sizes: Sizes) -> list[Prompt]:
    return [replace(p, sizes={**p.sizes, **sizes}) if sizes else p for p in prompts]


def _encoded(
    model: Adapter, texts: str | Sequence[str | Prompt], branch: Branch, n: int, how: TextOptions
) -> list[Prompt]:
    """Encode those that are still texts, in one batch."""
    given = [texts] * n if isinstance(texts, str) else list(texts)
    if len(given) != n:
        raise UsageError(
            f"branch {branch!r} reads {len(given)} prompts for {n} samples; give one, or one a sample"
        )
    for prompt in given:
        if isinstance(prompt, Prompt):
            _check_encoded(model, prompt, how)
    places = [i for i, p in enumerate(given) if isinstance(p, str)]
    written = [p for p in given if isinstance(p, str)]
    encode = model.negative if branch == "uncond" else model.encode
    made = iter(encode(written, branch, places, **how) if written else ())
    return [next(made) if isinstance(p, str) else p for p in given]


def _check_encoded(model: Adapter, prompt: Prompt, how: TextOptions) -> None:
    """Raise ValueError for what cannot act on a prompt any more, unless it was encoded in just that way."""
    skip, chunks = how.get("clip_skip"), how.get("long_prompts")
    if (skip or 0) != (prompt.clip_skip or 0) and skip is not None:
        raise UsageError(
            f"clip_skip is {skip}, but {prompt.text!r} was encoded with clip_skip {prompt.clip_skip}, and is "
            f"not read again; give the text, or model.encode(texts, clip_skip={skip})"
        )
    read = len(prompt.embeds) // model.pipe.tokenizer.model_max_length if chunks else chunks
    if read != chunks:
        raise UsageError(
            f"long_prompts is {chunks}, but {prompt.text!r} was encoded in {read} chunk{'s' * (read != 1)}, "
            f"and is not read again; give the text, or model.encode(texts, long_prompts={chunks})"
        )


def guided(
    model: Adapter,
    x: Tensor,
    steps: tuple[Step, ...],
    reading: Reading,
    *,
    known: Mapping[Branch, Tensor] | None = None,
    memory: Mapping[str, Tensor] | None = None,
) -> Guided:
    """Call the network for every branch that is needed and not known, and combine what it says.

    Args:
        model: an opened model.
        x: network inputs [sample, ...].
        steps: the step of each sample.
        reading: the branches and what they read.
        known: outputs of branches that need not be computed.
        memory: what the guidance remembers.
    """
    known, memory = known or {}, memory or {}
    wanted = _wanted(reading.guidance, steps, memory)
    order = [b for b in (*model.branch_order, *reading.branches) if b in reading.branches]
    order = [b for b in dict.fromkeys(order) if wanted is None or b in wanted]
    missing = [b for b in order if b not in known]
    made: dict[Branch, Tensor] = {}
    for some in _passes(model, reading, missing):
        made.update(_call(model, x, steps, reading, some))
    outputs = {b: known[b] if b in known else made[b] for b in order}
    context = GuidanceContext(model, steps, x, tuple(reading.prompts["cond"]))
    combined = reading.guidance.combine(outputs, context, memory)
    if isinstance(combined, Tensor):
        combined = Combined(combined, memory=memory)
    return Guided(combined, outputs, len(made) * len(x))


def _wanted(
    guidance: Guidance, steps: Sequence[Step], memory: Mapping[str, Tensor]
) -> Collection[Branch] | None:
    """The branches that are needed at any of the rows' steps; None is all."""
    each = [guidance.active(step, memory) for step in dict.fromkeys(steps)]
    return None if None in each else {b for some in each for b in some or ()}


def _passes(model: Adapter, reading: Reading, missing: Sequence[Branch]) -> list[list[Branch]]:
    """Which branches share a call: all, but for other networks, and families that make passes."""
    if model.cfg_in_two_passes:
        return [[b] for b in sorted(missing, key=lambda b: b != "cond")]
    own = [[b] for b in missing if reading.branches[b].network is not None]
    together = [b for b in missing if reading.branches[b].network is None]
    return [*([together] if together else []), *own]


def _call(
    model: Adapter, x: Tensor, steps: tuple[Step, ...], reading: Reading, some: Sequence[Branch]
) -> dict[Branch, Tensor]:
    n = len(x)
    rows = {b: slice(i * n, (i + 1) * n) for i, b in enumerate(some)}
    prompts = [p for b in some for p in reading.prompts[b]]
    network = reading.branches[some[0]].network
    part = model.input_site.component if network is None else f"network of branch {some[0]}"
    refuse_memory(part, model.denoiser if network is None else network)
    call = Call(part, rows, steps, {b: reading.prompts[b] for b in some}, reading.guidance.told_scale)
    step = steps[0] if len(set(steps)) == 1 else [*steps] * len(some)
    with model.calling(call), model.live.another(network):
        out = model.predict(x if len(some) == 1 else torch.cat([x] * len(some)), step, prompts)
    return dict(zip(some, out.chunk(len(some)) if len(some) > 1 else (out,), strict=True))
