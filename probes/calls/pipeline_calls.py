"""Follows the calls of a pipeline itself: its arguments, what it encodes, its latents after each step."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

from ...models.errors import StateError
from ...models.places.account import AccountError
from .following import Follower
from .state import Running
from .texts import encoded


class PipelineCalls:
    """Tells a Follower when the pipeline's own call begins and ends, and what it was given.

    Args:
        calls: who follows the networks.
        watched: the components with hooks on them.
    """

    def __init__(self, calls: Follower, watched: Mapping[str, nn.Module]) -> None:
        self.calls, self.watched = calls, watched

    @contextmanager
    def following(self) -> Iterator[None]:
        """Follow the pipeline's calls and its ``encode_prompt`` while the context lasts."""
        pipe, kind = self.calls.model.pipe, type(self.calls.model.pipe)
        methods = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
        for name, wrap in (("__call__", self._called), ("encode_prompt", self._encoded)):
            if hasattr(kind, name):
                methods[name] = _wrapping(getattr(kind, name), wrap)
        undo = self.calls.wrapped
        try:
            undo.add(functools.partial(setattr, pipe, "__class__", kind))
            undo.add(self.calls.leave)
            pipe.__class__ = type(kind.__name__, (kind,), methods)  # Python looks up __call__ there alone
            yield
            self.calls.end_of_loop()
        finally:
            try:
                undo()
            except BaseException:  # interrupted before it began; what it puts back would keep it alive
                undo()
                raise

    def _called(self, method: Callable[..., Any], bound: inspect.BoundArguments) -> Any:
        """A call of the pipeline: everything in it belongs to one run."""
        self._check_components()
        self.calls.end_of_loop()
        before, self.calls.running = self.calls.running, Running(_known(bound))
        try:
            if self.calls.table and self.calls.model.conditional and self.calls.listener.reads_prompts:
                branches = self.calls.model.branch_order
                self.calls.running.prompts = encoded(self.calls.model, _known(bound), branches)
            if "callback_on_step_end" in bound.signature.parameters:
                self._listen(bound)
            result = method(*bound.args, **bound.kwargs)
            if self.calls.running.step is None:
                part = self.calls.model.input_site.component
                raise AccountError(
                    f"the call of {self.calls.model.name} came to its end without a call of {part}"
                )
            self._check_components()  # a callback may have changed them
            self.calls.listener.finished(self.calls.running)
        except BaseException:
            self.calls.leave()  # torch calls no hook after an interrupt
            self.calls.listener.failed()
            raise
        finally:
            self.calls.running = before
        return result

    def _check_components(self) -> None:
        for part, module in self.watched.items():
            if self.calls.model.components.get(part) is not module:
                raise StateError(f"{part} was replaced while attached; replace it first, then attach")
        self.calls.model.places()  # what is watched is where it was

    def _listen(self, bound: inspect.BoundArguments) -> None:
        """Hear of the latents at the end of each step, as the pipeline goes on with them."""
        running, users = self.calls.running, bound.arguments.get("callback_on_step_end")
        names = getattr(users, "tensor_inputs", None)  # diffusers' PipelineCallback
        names = names or _known(bound)["callback_on_step_end_tensor_inputs"]

        def heard(pipe: Any, i: int, t: Any, values: dict[str, Any]) -> Any:
            own = values["latents"]
            result = users(pipe, i, t, {n: values[n] for n in names}) if users else {}
            running.latents = result.get("latents", own) if isinstance(result, dict) else own
            return result

        bound.arguments["callback_on_step_end"] = heard
        bound.arguments["callback_on_step_end_tensor_inputs"] = list(dict.fromkeys([*names, "latents"]))

    def _encoded(self, method: Callable[..., Any], bound: inspect.BoundArguments) -> Any:
        """A call of ``encode_prompt``: what it returns is what the denoiser is given."""
        before, self.calls.encoding = self.calls.encoding, _known(bound)
        try:
            result = method(*bound.args, **bound.kwargs)
        finally:
            self.calls.encoding = before
        if self.calls.model.cfg_in_two_passes and self.calls.running.arguments is not None:
            self.calls.running.keep_read(_known(bound), result[0])
        return result


def _wrapping(method: Any, wrap: Callable[..., Any]) -> Any:
    signature = inspect.signature(method)

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        return wrap(method, signature.bind(*args, **kwargs))

    return call


def _known(bound: inspect.BoundArguments) -> dict[str, Any]:
    whole = inspect.BoundArguments(bound.signature, type(bound.arguments)(bound.arguments))
    whole.apply_defaults()
    return dict(whole.arguments)
