"""The composition gap: how far summed conditions are from the condition that says both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Unpack

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from ...models.adapter import Adapter
from ...models.arguments import checked
from ...models.base import Model
from ...models.drawn import Figure, figure
from ...models.errors import UsageError
from ...models.guidance.cfg import CFG
from ...models.guidance.parts import GuidanceBranch, GuidanceContext
from ...models.guidance.value import Guidance
from ...models.html import panel, table
from ...models.run.levels import Step
from ...models.run.sampling import Sampling, SamplingOptions


@dataclass(frozen=True, eq=False)
class CompositionGap:
    """How far the composition of some texts is from the text that says all of them.

    Args:
        texts: what was composed.
        joint: what says all of it.
        steps: of the run.
        gap: ``|eps_composed - eps_joint| / |eps_joint - eps_uncond|``, [step, sample]: 0 where the texts are
            independent given the noisy picture, 1 where composing is as far off as saying nothing.
        cosine: of the two differences from the unconditional output, [step, sample].
    """

    texts: tuple[str, ...]
    joint: str
    steps: tuple[Step, ...]
    gap: Float[Tensor, "step sample"]
    cosine: Float[Tensor, "step sample"]

    def __repr__(self) -> str:
        return f"CompositionGap({' AND '.join(map(repr, self.texts))}; mean {float(self.gap.mean()):.2f})"

    def _repr_html_(self) -> str:
        rows = [
            (s.index, s.sigma, float(g.mean()), float(c.mean()))
            for s, g, c in zip(self.steps, self.gap, self.cosine, strict=True)
        ]
        return panel(repr(self), table(("step", "sigma", "gap", "cosine"), rows))

    def to_frame(self) -> pd.DataFrame:
        """Return a table: step, sigma, sample, gap, cosine."""
        rows = [
            (step.index, step.sigma, sample, float(self.gap[i, sample]), float(self.cosine[i, sample]))
            for i, step in enumerate(self.steps)
            for sample in range(self.gap.shape[1])
        ]
        return pd.DataFrame(rows, columns=["step", "sigma", "sample", "gap", "cosine"])

    def plot(self) -> Figure:
        """Return a figure of the gap over the steps, ``analysis.plots.gap_lines``."""
        return figure("gap_lines", self)


@dataclass(frozen=True)
class _Beside(Guidance):
    """Classifier-free guidance, with texts that are read beside it and change nothing."""

    guidance: CFG
    texts: tuple[str, ...]

    @property
    def told_scale(self) -> float:  # type: ignore[override]  # a value here
        return self.guidance.told_scale

    def branches(self, model: Adapter) -> tuple[GuidanceBranch, ...]:  # noqa: ARG002
        texts = (GuidanceBranch(text, (text,)) for text in self.texts)
        cond = GuidanceBranch("cond")
        return (GuidanceBranch("uncond", "negative_prompts"), cond, *texts)

    def combine(
        self, outputs: Mapping[str, Tensor], context: GuidanceContext, memory: Mapping[str, Tensor]
    ) -> Tensor:
        return self.guidance.combine(outputs, context, memory)


@checked
def composition_gap(
    model: Model,
    texts: Sequence[str],
    joint: str,
    *,
    seeds: Sequence[int],
    **settings: Unpack[SamplingOptions],
) -> CompositionGap:
    """Measure how far the composition of texts is from the text that says all of them (Liu et al. 2022).

    On the runs of the joint text: ``eps_uncond + sum_i (eps_i - eps_uncond)`` beside ``eps_joint``, in the
    network's own output. It is a probe of independence: where the texts' attributes are independent given
    the noisy picture both are equal, whatever was seen together in training.

    Args:
        model: an opened model.
        texts: what is composed, two or more.
        joint: what says all of it.
        seeds: one for each run.
        **settings: how it is sampled, as in ``Sampling``; guidance is a scale or a CFG.

    Raises:
        ValueError: for fewer than two texts, another guidance, or a model that reads no prompts.

    >>> from denoscope.models.synthetic.analytic import Analytic, two_by_two
    >>> found = composition_gap(Analytic(two_by_two()), ["red", "circle"], "red circle", seeds=[0], steps=4)
    >>> bool((found.gap < 1e-9).all())  # shape and colour are independent there
    True
    """
    guidance = Sampling(**settings).guided(model)
    if len(texts) < 2 or len(set(texts)) < len(texts) or not all(texts):
        raise UsageError(f"the texts are {list(texts)}; give two or more, each once and none of them empty")
    if not isinstance(guidance, CFG):
        raise UsageError(f"guidance is {guidance}; the gap is measured on runs of a scale, or of a CFG")
    if not model.conditional:
        raise UsageError(f"{model.name} reads no prompts, so there is nothing to compose")
    beside = _Beside(guidance, tuple(texts))
    how: SamplingOptions = {**settings, "guidance": beside, "guidance_rescale": 0.0}
    steps, gaps, cosines = [], [], []
    with torch.no_grad():
        for state in model.sample([joint] * len(seeds), seeds=seeds, **how):
            uncond = state.outputs["uncond"]
            wanted = (state.outputs["cond"] - uncond).flatten(1)
            composed = torch.stack([state.outputs[text] - uncond for text in texts]).sum(0).flatten(1)
            steps.append(state.step)
            gaps.append(((composed - wanted).norm(dim=1) / wanted.norm(dim=1)).cpu())
            cosines.append(torch.cosine_similarity(composed, wanted, dim=1).cpu())
    return CompositionGap(tuple(texts), joint, tuple(steps), torch.stack(gaps), torch.stack(cosines))
