"""How a run is sampled: one value, whose keywords are the same in every function that samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from ..adapter import Adapter
from ..guidance.cfg import CFG
from ..guidance.value import Guidance
from ..text.prompt import Prompt
from .schedule import Schedule, n_steps


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

    def __post_init__(self) -> None:
        _ = self.schedule  # checks itself
        if isinstance(self.guidance, Guidance) and self.guidance_rescale:
            raise ValueError(
                f"guidance_rescale is {self.guidance_rescale} beside {self.guidance}; it is short for "
                "guidance=CFG(scale, rescale=...): write it there"
            )
        if self.guidance is not None:
            as_guidance(self.guidance, self.guidance_rescale)
        CFG(1.0, rescale=self.guidance_rescale)
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta is {self.eta}; it is a number from 0 (no noise) to 1")

    @property
    def schedule(self) -> Schedule:
        """When the network is called."""
        own = self.timesteps is not None or self.sigmas is not None
        steps = 20 if self.steps is None and not own else self.steps
        return Schedule(steps, _tuple(self.timesteps), _tuple(self.sigmas))

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
