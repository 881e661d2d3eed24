"""Watching and changing inside a user's own pipeline call: img2img, inpainting, ControlNet, own loops."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

from ..models.arguments import checked
from ..models.base import Model
from ..models.errors import NotFoundError, UsageError
from ..models.guidance.value import Guidance
from ..models.load import opened
from ..models.places.account import Account
from ..models.places.hooks import after_calls, before_calls
from ..models.places.intervention import parts_of
from ..models.run.context import TEXT, Branch, When
from ..models.site import Site
from .calls.following import Follower
from .calls.guiding import Guide
from .calls.pipeline_calls import PipelineCalls
from .calls.pipelines import rows_of
from .calls.recording import Recorder
from .calls.state import Rows
from .intervene import Intervention, Probe, intervening
from .trace import Trace, expand


class AttachedRun:
    """What goes on inside a user's own calls.

    Args:
        model: the opened pipeline, whose sites, weights and edits are the pipeline's.
        account: which interventions and traced sites met which steps and rows, over all calls.
        traces: one for each call of the pipeline that came to its end, in order.
    """

    def __init__(self, model: Model, account: Account, traces: list[Trace], follower: Follower) -> None:
        self.model, self.account, self.traces = model, account, traces
        self._follower = follower

    @property
    def trace(self) -> Trace:
        """The trace of the one call that was made.

        Raises:
            LookupError: if there was none, or several: they are ``traces``.
        """
        if len(self.traces) != 1:
            raise NotFoundError(f"{len(self.traces)} calls came to their end; look at run.traces")
        return self.traces[0]

    @checked
    @contextmanager
    def assigning(self, rows: Rows | Branch) -> Iterator[None]:
        """Say whose the rows are in calls that you make yourself, of the denoiser and of text encoders.

        Args:
            rows: where each branch lies in the batch, or the one branch that all rows belong to.
        """
        before, self._follower.assigned = self._follower.assigned, rows
        try:
            yield
        finally:
            self._follower.assigned = before


@checked
@contextmanager
def attached(
    pipe: Any,
    *interventions: Probe,
    trace: Sequence[Site | str] | Site | str = (),
    when: When = When(),
    rows: Mapping[Branch, slice] | None = None,
    guidance: Guidance | None = None,
) -> Iterator[AttachedRun]:
    """Watch and change what goes on while you call a diffusers pipeline yourself.

    Which rows are whose is asked of the pipeline: of its running call whether it is guided, of the scheduler
    in use the step, and a call of a text encoder is whose tokens it is given. Step 0 is the first that a
    call makes, in img2img too. In a loop of your own (with ``rows``) a step's index is its place among the
    timesteps of ``pipe.scheduler``, and texts read outside the pipeline's methods count as the prompt
    unless ``run.assigning`` says otherwise.

    The prompts of rows are known where texts were given that the model reads whole; they are then encoded
    once more, unseen, at the beginning of a call.

    Args:
        pipe: a diffusers pipeline of a supported family, or an opened model.
        interventions: what to do where; see ``Intervention``.
        trace: what to keep: sites, addresses or globs; afterwards in ``run.trace``.
        when: which steps, branch and samples to keep. One branch only.
        rows: where each guidance branch lies in a batch of the denoiser, for loops of your own and for
            pipelines that are not known.
        guidance: terms to add to what goes into ``scheduler.step``. The pipeline keeps its own
            guidance, so what has or needs branches (CFG, PAG, ...) is refused.

    Yields:
        An AttachedRun: the opened ``model``, the ``account``, and after each call its ``trace``.

    Raises:
        LookupError: if a site is not in the model.
        ValueError: for a pipeline of an unknown family, or one whose rows are not known and not given, and
            for guidance with branches.
        RuntimeError: an ``AccountError`` if something acts elsewhere, more often or less often than it
            should, or never, and for calls whose rows or step cannot be known.

    >>> from denoscope.models.synthetic.tiny import tiny_sd
    >>> pipe = tiny_sd()
    >>> with attached(pipe, trace="unet/mid.attn.0.0/cross_attn.out") as run:
    ...     picture = pipe("a cat", num_inference_steps=2).images[0]
    >>> {str(site): tuple(x.shape) for site, x in run.trace.items()}
    {'unet/mid.attn.0.0/cross_attn.out': (2, 1, 16, 16)}
    """
    if when.branch is None:
        raise UsageError("a trace keeps one guidance branch; set When(branch='cond') or 'uncond'")
    model = opened(pipe)
    table = rows_of(model.pipe) if rows is None else None
    guide = None if guidance is None else Guide(guidance)
    recorder = Recorder(model, expand(model, trace), when, guide)
    planned = parts_of(model, [*interventions, *recorder.interventions()])
    watched = _watched(model, planned)
    follower = Follower(model, table, rows, recorder, guide)
    recorder.reads_prompts = bool(planned or guide)
    with ExitStack() as stack:
        for part, module in watched.items():
            texts = part.startswith(TEXT)
            called = functools.partial(follower.read, part) if texts else follower.denoise
            stack.enter_context(before_calls(module, called))
        recorder.account = stack.enter_context(intervening(model, *planned))
        for module in watched.values():
            stack.enter_context(after_calls(module, follower.done, follower.leave))
        stack.enter_context(PipelineCalls(follower, watched).following())
        yield AttachedRun(model, recorder.account, recorder.traces, follower)


def _watched(model: Model, planned: Sequence[Intervention]) -> dict[str, nn.Module]:
    """The denoiser, and the text encoders in which something is planned."""
    texts = {i.site.component for i in planned if i.site.component.startswith(TEXT)}
    parts: Mapping[str, nn.Module] = model.components
    return {n: parts[n] for n in (model.input_site.component, *sorted(texts))}
