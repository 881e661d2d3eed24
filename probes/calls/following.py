"""Follows a user's own calls of a pipeline: which step, which rows, whose text; nothing is guessed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from ...models.base import Model
from ...models.places.account import AccountError
from ...models.run.context import TEXT, Branch, Call
from ...models.run.levels import Step
from ...models.run.schedule import noise_level
from ...models.text.prompt import Words
from ...models.undo import Undo
from .guiding import Guide
from .pipelines import Arguments, PipelineRows
from .state import Rows, Running, TextCall, checked, sized
from .steps import place_of, stepping
from .texts import as_given, branch_of, texts_of, words_of


class Listener(Protocol):
    """Hears of the steps, and of each run's end."""

    reads_prompts: bool

    def step(self, step: Step) -> None:
        """A step is made."""

    def finished(self, run: Running) -> None:
        """A run came to its end."""

    def failed(self) -> None:
        """A call of the pipeline failed."""


class Follower:
    """Tells the model what each call of its networks is.

    Args:
        model: the opened pipeline.
        table: the pipeline's entry; None if its rows are given.
        rows: whose the rows of the denoiser are, instead of asking the pipeline.
        listener: hears of the steps, and of each run's end.
        guide: changes what goes into ``scheduler.step``.
    """

    def __init__(
        self,
        model: Model,
        table: PipelineRows | None,
        rows: Rows | None,
        listener: Listener,
        guide: Guide | None = None,
    ) -> None:
        self.model, self.table, self.rows, self.guide = model, table, rows, guide
        self.listener = listener
        self.running = Running()
        self.assigned: Rows | Branch | None = None
        self.encoding: Arguments | None = None
        self._call: Call | None = None
        self.wrapped = Undo()
        self._schedulers: list[Any] = []

    def end_of_loop(self) -> None:
        """A loop of the user's own is over, where one was going on."""
        if self.running.arguments is None and self.running.step is not None:
            self.listener.finished(self.running)
            self.running = Running()

    # calls of the networks ----------------------------------------------------------------------------

    def denoise(self, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        """The denoiser is called."""
        self.leave()  # an earlier call that was interrupted
        if self.model.call is not None and self.running.arguments is None:
            return  # denoscope's own loop
        self._follow(self.model.pipe.scheduler)
        x: Any = args[0] if args else kwargs.get("hidden_states", kwargs.get("sample"))
        told = torch.as_tensor(kwargs["timestep"] if "timestep" in kwargs else args[1]).flatten()[0]
        rows = self._rows(len(x), kwargs)
        step = self._step(told, rows)
        self.running.rows = rows
        self.listener.step(step)
        prompts = {
            b: as_given(self.running.prompts[b], r, kwargs, len(x))
            for b, r in rows.items()
            if b in self.running.prompts
        }
        each = (step,) * next(r.stop - r.start for r in rows.values())
        scale = (self.running.arguments or {}).get("guidance_scale")
        if self.model.call is None:
            self._begin(Call(self.model.input_site.component, rows, each, prompts, scale))

    def read(self, part: str, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        """A text encoder is called."""
        self.leave()  # an earlier call that was interrupted
        if self.model.call is not None:
            return
        ids = args[0] if args else kwargs["input_ids"]
        if isinstance(self.assigned, Mapping):
            rows, texts = checked(self.assigned, len(ids)), {}
        else:
            branch = self.assigned or self._reader(part, ids)
            rows, texts = {branch: slice(0, len(ids))}, self._words(branch, part, ids)
        self._begin(TextCall(TEXT, rows, prompts=texts, encoder=part, layers_read=self._layers_read(rows)))

    def done(self) -> None:
        """A call has come to its end."""
        if self._call is not None and self.model.call is self._call:
            self.model.live.end(self._call)

    def leave(self) -> None:
        """A call is over, error or not; nothing if none is on."""
        if self._call is not None and self.model.call is self._call:
            self.model.live.call = None
        self._call = None

    def _begin(self, call: Call) -> None:
        self._call = call
        self.model.live.begin(call)

    def _follow(self, scheduler: Any) -> None:
        if not any(scheduler is s for s in self._schedulers):
            self._schedulers.append(scheduler)
            stepping(scheduler, self._stepped, self.wrapped, self._guided if self.guide else None)

    def _guided(self, scheduler: Any, given: Mapping[str, Any]) -> Any:
        model = sized(self.model, self.running.arguments or {})
        return self.guide.output(model, self.running, scheduler, given) if self.guide else given

    def _stepped(self, latents: Tensor) -> None:
        rows, whole = self.running.rows, max((r.stop for r in self.running.rows.values()), default=0)
        joint = len(rows) > 1 and len(latents) == whole  # DiT steps all branches together
        self.running.latents = latents[rows["cond"]] if joint and "cond" in rows else latents

    # whose the rows are -------------------------------------------------------------------------------

    def _rows(self, n: int, kwargs: Mapping[str, Any]) -> dict[Branch, slice]:
        if self.assigned is not None:
            given = {self.assigned: slice(0, n)} if isinstance(self.assigned, str) else self.assigned
            return checked(given, n)
        if self.rows is not None:
            return checked(self.rows, n)
        table, arguments = self.table, self.running.arguments
        if table is None or arguments is None:
            raise AccountError(
                f"{self.model.input_site.component} was called outside a call of {self.model.name}, so whose "
                "the rows are is not known; attach the pipeline that you call, or say it: attached(pipe, "
                'rows={"uncond": slice(0, 1), "cond": slice(1, 2)}), or with run.assigning({...})'
            )
        for keyword, branch in table.extra.items():
            if kwargs.get(keyword) is not None:
                return {branch: slice(0, n)}
        if not table.guided(self.model.pipe, arguments):
            return {"cond": slice(0, n)}
        if self.model.cfg_in_two_passes:
            return {self._pass(kwargs): slice(0, n)}
        first, second = self.model.branch_order
        return checked({first: slice(0, n // 2), second: slice(n // 2, n)}, n)

    def _pass(self, kwargs: Mapping[str, Any]) -> Branch:
        """Which pass this is: that of the embeddings which ``encode_prompt`` gave for the negative prompt."""
        read, given = self.running.read, kwargs["encoder_hidden_states"]
        if read.get("cond") is read.get("uncond"):
            raise AccountError(
                "prompt_embeds and negative_prompt_embeds are one tensor, so which pass is whose cannot be "
                "known; give negative_prompt_embeds.clone()"
            )
        return "uncond" if given is read.get("uncond") else "cond"

    def _step(self, told: Tensor, rows: Rows) -> Step:
        run, scheduler = self.running, self.model.pipe.scheduler
        known = self.table is not None and run.arguments is not None and self.assigned is None
        if known and "cond" not in rows and run.step is not None:
            return run.step  # another pass of the same step
        place = place_of(scheduler, told, self.model.time_scale, _after(run) if known else None)
        if run.place is None and run.arguments is not None:
            run.first = place
        if run.arguments is None and run.place is not None and place < run.place:
            self.end_of_loop()  # and another begins
            run = self.running
        run.index = run.index + 1 if known else place - run.first
        run.place = place
        run.step = Step(run.index, float(scheduler.timesteps[place]), noise_level(scheduler, place))
        return run.step

    # whose a text is ----------------------------------------------------------------------------------

    def _reader(self, part: str, ids: Tensor) -> Branch:
        """Whose text this is; outside the pipeline's methods, what is read counts as the prompt."""
        arguments = self.running.arguments or self.encoding
        if arguments is None:
            return "cond"
        order = self.table.text_order if self.table else ("cond", "uncond")
        read = [b for b in order if b == "cond" or self._reads_negative(arguments)]
        return branch_of(self.model.pipe, arguments, part, ids, order=read, met=self.running.met)

    def _reads_negative(self, arguments: Arguments) -> bool:
        if self.encoding and "do_classifier_free_guidance" in self.encoding:
            return bool(self.encoding["do_classifier_free_guidance"])
        if self.running.arguments is None:
            return False
        if self.table is None:
            return "uncond" in (self.rows or ())
        return self.table.guided(self.model.pipe, arguments)

    def _layers_read(self, rows: Rows) -> Mapping[str, int]:
        """How many layers of an encoder are read; unknown outside the pipeline's methods."""
        arguments = self.running.arguments or self.encoding
        if arguments is None:
            return {}
        return self.model.layers_read(None if "uncond" in rows else arguments.get("clip_skip"))

    def _words(self, branch: Branch, part: str, ids: Tensor) -> dict[Branch, Sequence[Words]]:
        """What the rows read: with tokens where the call's prompts are known, else the texts alone."""
        n, arguments = len(ids), self.running.arguments or self.encoding
        tokenizer = getattr(self.model.pipe, part.replace(TEXT, "tokenizer"))
        known = words_of(tokenizer, self.running.prompts.get(branch, ()), part, ids)
        if known:
            return {branch: known}
        texts = texts_of(arguments, branch, part.removeprefix(TEXT)) if arguments else None
        if texts is None or len(texts) not in (1, n):
            return {}
        return {branch: [Words(t, ()) for t in (texts * n if len(texts) == 1 else texts)]}


def _after(run: Running) -> int:
    return -1 if run.place is None else run.place
