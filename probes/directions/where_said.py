"""An intervention that acts for those prompts alone that hold some words; all others stay to the bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from ...models.adapter import Adapter
from ...models.arguments import checked
from ...models.errors import UsageError
from ...models.places.intervention import Change
from ...models.run.context import CallContext
from ...models.text.prompt import occurrence, places
from ..intervene import Intervention, Spec


@checked
def where_said(words: str, interventions: Intervention | Sequence[Intervention]) -> tuple[Intervention, ...]:
    """Return interventions that act for prompts that hold some words, and leave all others to the bit.

    Directions of a subject's rows refuse a prompt without the subject; so do not these.

    Args:
        words: ``"cook"``; of ``"cook:2"`` the words count, not which of them.
        interventions: in the denoiser, what acts there.

    Raises:
        ValueError: for no words, no interventions, and such as act in a text encoder, where the text of a
            sample is not known as a whole.

    >>> import torch
    >>> from denoscope.models.synthetic.tiny import tiny_sd
    >>> d = Direction("unet/mid.attn.0.0/cross_attn.out", torch.ones(16))
    >>> acting = where_said("cat", d.steer(0.5))
    >>> run = trace(load(tiny_sd()), ["a cat", "a dog"], seeds=[0, 0], steps=2, interventions=acting)
    """
    given = (interventions,) if isinstance(interventions, Intervention) else tuple(interventions)
    word = occurrence(words)[0].strip()
    if not word or not given:
        raise UsageError(f"words is {words!r} for {len(given)} interventions; give one of each at least")
    return tuple(_WhereSaid(i.site, i.fn, i.when, _spec(word, i), inner=i, words=word) for i in given)


def _spec(word: str, inner: Intervention) -> Spec | None:
    return inner.spec and Spec("where said", {"words": word, "inner": inner.spec.digest})


@dataclass(frozen=True)
class _WhereSaid(Intervention):
    """An intervention and the words that it waits for."""

    inner: Intervention | None = field(default=None, compare=False, repr=False)
    words: str = ""

    def parts(self, model: Adapter) -> tuple[Intervention, ...]:
        """Return what it is in one model."""
        if self.site.component.startswith("text_encoder"):
            raise UsageError(f"{self.site} is in a text encoder; where_said takes what acts in the denoiser")
        own = self.inner.parts(model) if self.inner else ()
        return tuple(replace(i, fn=_Waiting(self.words, i.fn), spec=_spec(self.words, i)) for i in own)


@dataclass(frozen=True, eq=False)
class _Waiting:
    """A change of the rows whose prompt holds some words."""

    words: str
    fn: Change

    def __call__(self, x: Tensor, context: CallContext) -> Tensor | None:
        rows = [i for i, prompt in enumerate(context.prompts) if places(prompt.text, self.words)]
        if not rows:
            return None
        if len(rows) == len(x):
            return self.fn(x, context)
        samples = tuple(context.samples[i] for i in rows)
        prompts = tuple(context.prompts[i] for i in rows)
        new = self.fn(x[rows], replace(context, samples=samples, prompts=prompts))
        if new is None:
            return None
        made = x.clone()
        made[rows] = new
        return made
