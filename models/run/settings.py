"""How a run is sampled: one value, whose keywords are the same in every function that samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from ..adapter import Adapter
from ..arguments import check_fields
from ..errors import UsageError
from ..guidance.cfg import CFG
from ..guidance.value import Guidance
from ..text.options import LongPrompts, Pair, TextOptions
from ..text.prompt import Prompt
from .schedule import Schedule, n_steps

_SIZES = ("original_size", "crops_coords_top_left", "target_size")


class SamplingOptions(TypedDict, total=False):
    """The keywords of ``Sampling``, the same in every function that samples."""

    steps: int | None
    guidance: float | Guidance | None
    guidance_rescale: float
    negative: str | Sequence[str | Prompt]
    size: tuple[int, int] | None
    timesteps: Sequence[float] | None
    sigmas: Sequence[float] | None
    eta: float
    clip_skip: int | None
    long_prompts: LongPrompts
    original_size: Pair | None
    crops_coords_top_left: Pair | None
    target_size: Pair | None
    negative_original_size: Pair | None
    negative_crops_coords_top_left: Pair | None
    negative_target_size: Pair | None


@dataclass(frozen=True)
class Sampling:
    """How a run is sampled.

    Args:
        steps: number of steps; None is 20, or as many as the own times or levels make.
        guidance: a scale, or a Guidance; None is the model's default, 1 or less is none.
        guidance_rescale: how far the guided output is brought back to the spread of the conditional one
            (Lin et al. 2023, eq. 14-16); short for ``CFG(scale, rescale=...)``.
        negative: what the unconditional branch reads: one text for all samples, or one a sample.
        size: height and width in pixels; None is the model's own.
        timesteps: own times in place of the scheduler's spacing, falling.
        sigmas: own noise levels, falling, in the scheduler's own terms.
        eta: how much noise is drawn at each step, 0 to 1, where the scheduler takes it (DDIM, TCD).
        clip_skip: how many of the text encoder's last layers are left out for prompts that are given as texts
            (SD, SDXL); negative prompts are read to the end, as in the pipelines. Encoded ones are
            refused unless they were encoded so.
        long_prompts: ``"error"`` refuses texts longer than the encoder reads; ``"chunks"`` reads them in
            chunks whose states the denoiser gets one after another (SD), all texts of a run in as many as
            the longest needs; a number is so many chunks. Encoded ones are refused that have another number.
        original_size: height and width that the denoiser is told the picture had (SDXL); None is its own.
        crops_coords_top_left: where it is told that the picture was cropped (SDXL); None is (0, 0).
        target_size: the size that it is told to paint (SDXL); None is the picture's own.
        negative_original_size: the same beside negative prompts, with ``negative_target_size``; None is as
            beside the prompts.
        negative_crops_coords_top_left: the same, with both.
        negative_target_size: the same, with ``negative_original_size``.

    Raises:
        ValueError: for settings that cannot be, or contradict each other.
    """

    steps: int | None = None
    guidance: float | Guidance | None = None
    guidance_rescale: float = 0.0
    negative: str | Sequence[str | Prompt] = ""
    size: tuple[int, int] | None = None
    timesteps: Sequence[float] | None = None
    sigmas: Sequence[float] | None = None
    eta: float = 0.0
    clip_skip: int | None = None
    long_prompts: LongPrompts = "error"
    original_size: Pair | None = None
    crops_coords_top_left: Pair | None = None
    target_size: Pair | None = None
    negative_original_size: Pair | None = None
    negative_crops_coords_top_left: Pair | None = None
    negative_target_size: Pair | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        _ = self.schedule  # checks itself
        if isinstance(self.guidance, Guidance) and self.guidance_rescale:
            raise UsageError(
                f"guidance_rescale is {self.guidance_rescale} beside {self.guidance}; it is short for "
                "guidance=CFG(scale, rescale=...): write it there"
            )
        if self.guidance is not None:
            as_guidance(self.guidance, self.guidance_rescale)
        CFG(1.0, rescale=self.guidance_rescale)
        if not 0 <= self.eta <= 1:
            raise UsageError(f"eta is {self.eta}; it is a number from 0 (no noise) to 1")
        self._check_sizes()

    @property
    def schedule(self) -> Schedule:
        """When the network is called."""
        own = self.timesteps is not None or self.sigmas is not None
        steps = 20 if self.steps is None and not own else self.steps
        return Schedule(steps, _tuple(self.timesteps), _tuple(self.sigmas))

    @property
    def text(self) -> TextOptions:
        """How texts are read."""
        given: TextOptions = {}
        if self.clip_skip is not None:
            given["clip_skip"] = self.clip_skip
        if self.long_prompts != "error":
            given["long_prompts"] = self.long_prompts
        return given

    def sizes(self, model: Adapter) -> tuple[dict[str, Pair], dict[str, Pair]]:
        """Return what the denoiser is told of sizes: beside the prompts, and beside the negative ones.

        Raises:
            ValueError: for a model that is told none, and for negative ones where nothing reads them.
        """
        told, negative = self._given(""), self._given("negative_")
        if (told or negative) and not model.told_sizes:
            name, size = next(iter({**told, **{f"negative_{n}": s for n, s in negative.items()}}.items()))
            raise UsageError(f"{name} is {size}, but {model.name} takes no {name}; leave it out")
        if negative and not any(b.reads == "negative_prompts" for b in self.guided(model).branches(model)):
            raise UsageError(f"negative sizes {negative} cannot act: the run is not guided; leave them out")
        return told, {"crops_coords_top_left": (0, 0), **negative} if negative else told

    def _given(self, prefix: str) -> dict[str, Pair]:
        values = {name: getattr(self, prefix + name) for name in _SIZES}
        return {name: tuple(size) for name, size in values.items() if size is not None}

    def _check_sizes(self) -> None:
        negative = self._given("negative_")
        for name, size in (*self._given("").items(), *negative.items()):
            least = 0 if name.startswith("crops") else 1
            if len(size) != 2 or any(s != int(s) or s < least for s in size):
                raise UsageError(f"{name} is {size}; it is a pair of whole numbers from {least} up")
        if negative and not {"original_size", "target_size"} <= set(negative):
            raise UsageError(
                "negative sizes count only together: give negative_original_size and negative_target_size"
            )

    def described(self, model: Adapter) -> dict[str, Any]:
        """Return the settings as numbers and texts, for the provenance of a result."""
        guidance = model.default_guidance if self.guidance is None else self.guidance
        negative = self.negative if isinstance(self.negative, str) else list(map(_text, self.negative))
        plain = guidance if isinstance(guidance, (int, float)) else repr(guidance)
        steps = self.schedule.steps or n_steps(model._begin(self.schedule))
        return {"steps": steps, "guidance": plain, "negative": negative, **self._more()}

    def _more(self) -> dict[str, Any]:
        """Those settings that differ from their defaults, beyond the usual ones."""
        usual = ("steps", "guidance", "negative", "size")
        names = [n for n in self.__dataclass_fields__ if n not in usual]
        values = {n: getattr(self, n) for n in names}
        changed = {n: v for n, v in values.items() if v != self.__dataclass_fields__[n].default}
        return {
            n: list(v) if isinstance(v, Sequence) and not isinstance(v, str) else v
            for n, v in changed.items()
        }

    def guided(self, model: Adapter) -> Guidance:
        """Return the guidance as a value."""
        scale = model.default_guidance if self.guidance is None else self.guidance
        return as_guidance(scale, self.guidance_rescale)


def _tuple(values: Sequence[float] | None) -> tuple[float, ...] | None:
    return None if values is None else tuple(values)


def _text(prompt: str | Prompt) -> str:
    return prompt if isinstance(prompt, str) else prompt.text


def as_guidance(guidance: float | Guidance, rescale: float = 0.0) -> Guidance:
    """Return a number as the classifier-free guidance that it is short for."""
    return guidance if isinstance(guidance, Guidance) else CFG(float(guidance), rescale=rescale)
