"""Our edits as a technique of eval-unlearn (https://github.com/REAL-Lab-Imperial/Eval-Unlearn).

It finds this class by the entry point ``eval_unlearn.techniques``, makes it of ``technique.config``, and
calls ``generate``. Nothing of eval-unlearn is imported: that is all it asks of a technique.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from .bench.methods import NAMES, chosen
from .editing.edit import Edit
from .models.arguments import checked
from .models.base import Model
from .models.errors import UsageError
from .models.load import load

if TYPE_CHECKING:
    from PIL.Image import Image


class EditTechnique:
    """A model with an edit on its weights, painting as its own pipeline paints.

    Pictures are made as eval-unlearn's ``free_run`` makes them, one call of the pipeline for each prompt with
    the seed after the one before, and without a safety checker: beside ``free_run`` of the same model they
    differ by the edit alone.

    Args:
        model_id: what ``denoscope.load`` opens: a hub id, a folder, ``"emoji"``.
        edit: a file that ``Edit.save`` or ``denoscope edit`` wrote.
        method: how to make one, in place of a file: a name of ``denoscope.bench``, ``"uce"``, ``"uce/code"``.
        words: for a method, what is said -> what is meant, ``{"firefighter": "cook"}``; None erases
            ``erase_concept``.
        options: more for the method, by its own names: ``{"keep": ["", "a person"]}``.
        erase_concept: what the reports of eval-unlearn call it, which also decides which metrics they allow.
        device: None is cuda, mps or the cpu, the first that there is.
        use_fp16: half precision; on cuda alone.
        num_inference_steps: steps of each picture.
        guidance_scale: of classifier-free guidance.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a file that is no edit, or one that was made for other weights; for both of ``edit``
            and ``method``, or neither; and as the method.
        LookupError: for a model or a method that there is not; it names near misses.
        TypeError: for keys that are none of these.
    """

    @checked
    def __init__(
        self,
        *,
        model_id: str,
        edit: str | None = None,
        method: str | None = None,
        words: Mapping[str, str] | None = None,
        options: Mapping[str, Any] | None = None,
        erase_concept: str | None = None,
        device: str | None = None,
        use_fp16: bool = True,
        num_inference_steps: int = 50,
        guidance_scale: float = 7.5,
    ) -> None:
        words = words or ({erase_concept: ""} if method and erase_concept else {})
        _check(edit, method, words, options)
        self.device = device or _best_device()
        half = use_fp16 and self.device.startswith("cuda")
        read = Edit.load(edit) if edit else None  # before a model is read
        model = load(model_id, device=self.device, dtype=torch.float16 if half else torch.float32)
        self.edit = read or _made(model, str(method), words, options or {})
        self.edit.apply(model)
        self.pipe = model.pipe
        self.pipe.set_progress_bar_config(disable=True)
        self.how = {"num_inference_steps": num_inference_steps, "guidance_scale": guidance_scale}

    @torch.no_grad()
    def generate(self, prompts: Sequence[str], seed: int | None = None, **kwargs: Any) -> list[Image]:
        """Return a picture for each prompt.

        Args:
            prompts: texts, cut off where the pipeline cuts them off.
            seed: of the first prompt; the next one has the next. None draws other noise at each call.
            kwargs: for the pipeline's call, before what the configuration says.
        """
        return [
            self.pipe(prompt=prompt, generator=self._noise(seed, i), **{**self.how, **kwargs}).images[0]
            for i, prompt in enumerate(prompts)
        ]

    def _noise(self, seed: int | None, i: int) -> torch.Generator | None:
        return None if seed is None else torch.Generator(self.device).manual_seed(seed + i)


def _check(
    edit: str | None, method: str | None, words: Mapping[str, str], options: Mapping[str, Any] | None
) -> None:
    if (edit is None) == (method is None):
        raise UsageError(
            f"edit is {edit!r} and method is {method!r}; give one of them: the file of an edit, or one of "
            f"{', '.join(NAMES)} with words, {{'firefighter': 'cook'}}"
        )
    if edit is not None and (words or options):
        raise UsageError(
            f"words {dict(words)!r} and options {options!r} are for a method; {edit!r} is an edit already"
        )
    if method is not None and not words:
        raise UsageError(
            f"the method {method!r} needs words, {{'firefighter': 'cook'}}, or an erase_concept to erase"
        )
    if method is not None:
        chosen([method])


def _made(model: Model, method: str, words: Mapping[str, str], options: Mapping[str, Any]) -> Edit:
    return chosen([method])[0].make(model, words, **options)


def _best_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
