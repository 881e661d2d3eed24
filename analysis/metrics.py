"""What a picture is scored by: a judge's fit or probability, latent distance, or any callable."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from ..models.arguments import checked
from ..models.errors import NotFoundError, UsageError, WrongTypeError
from ..models.html import Brief
from ..models.judges.choosing import Function, TextJudge, judge_spec
from ..models.store.fingerprint import tensor_hash
from ..models.store.identity import spec_of
from ..models.suggest import near
from ..models.text.prompt import Prompt
from .judging import fits


@dataclass(frozen=True, eq=False, repr=False)
class Outcome(Brief):
    """Some finished runs, as a metric sees them.

    Args:
        latents: final latents, [sample, ...].
        prompts: what each sample should show: the clean prompt, also where the run was corrupted.
        decode: turns latents into pictures; called only if a metric asks for ``images``.
        clean: final latents of the clean run with the same prompt and seed, [sample, ...].
    """

    latents: Float[Tensor, "sample ..."]
    prompts: tuple[Prompt, ...]
    decode: Callable[[Tensor], Tensor]
    clean: Float[Tensor, "sample ..."] | None = None

    def some(self, samples: Sequence[int]) -> Outcome:
        """Return the outcome of some samples."""
        chosen = list(samples)
        clean = None if self.clean is None else self.clean[chosen]
        return Outcome(self.latents[chosen], tuple(self.prompts[i] for i in chosen), self.decode, clean)

    @cached_property
    def images(self) -> Float[Tensor, "sample ..."]:
        """The pictures, in 0..1; decoded when first asked for."""
        return self.decode(self.latents)


Metric = Callable[[Outcome], Tensor]
"""Gives one number for each sample of an Outcome, [sample]."""


@runtime_checkable
class ClipScorer(Protocol):
    """What ``clip_score`` asks of a judge; the embedded one and ``clip_judge(...)`` can say it."""

    def clip_score(self, images: Tensor, texts: Sequence[str]) -> Tensor:
        """CLIP cosine of picture i with text i, [sample]."""


@runtime_checkable
class Classifier(Protocol):
    """What ``judge_probability`` asks of a judge; all but functions can say it."""

    def probability(self, images: Tensor, attribute: str, label: str) -> Tensor:
        """Probability of one label of an attribute, [sample]."""


@checked
def clip_score(judge: ClipScorer, text: str | None = None) -> Metric:
    """CLIP cosine of each picture with a text, or (None) with its own clean prompt; Hessel et al. 2021.

    >>> from denoscope.models.judges.embedded import load_judge
    >>> clip_score(load_judge("emoji"), "a firefighter").__name__
    "clip_score('a firefighter')"
    """

    def metric(outcome: Outcome) -> Tensor:
        texts = [p.text if text is None else text for p in outcome.prompts]
        return judge.clip_score(outcome.images, texts)

    name = f"clip_score({text!r})" if text is not None else "clip_score(own prompt)"
    return _named(metric, name, lambda: {"what": "clip_score", "judge": judge_spec(judge), "text": text})


@checked
def text_fit(judge: TextJudge | Function, text: str | None = None) -> Metric:
    """How well each picture fits a text, or (None) its own clean prompt, as any judge says by ``similarity``.

    Of a CLIP that is ``clip_score``; of an image classifier the probability of the label that the text names.

    Args:
        judge: any judge, or a function of pictures and texts.
        text: what should be seen.

    >>> text_fit(lambda images, texts: images.mean((1, 2, 3))[:, None], "light").__name__
    "text_fit('light')"
    """

    def metric(outcome: Outcome) -> Tensor:
        texts = [p.text if text is None else text for p in outcome.prompts]
        once = list(dict.fromkeys(texts))
        said = fits(judge, outcome.images, once)
        return said[range(len(texts)), [once.index(t) for t in texts]]

    name = f"text_fit({text!r})" if text is not None else "text_fit(own prompt)"
    return _named(metric, name, lambda: {"what": "text_fit", "judge": judge_spec(judge), "text": text})


@checked
def judge_probability(judge: Classifier, attribute: str, label: str) -> Metric:
    """Probability that a judge gives to one label of an attribute, like ("concept", "firefighter")."""

    def metric(outcome: Outcome) -> Tensor:
        return judge.probability(outcome.images, attribute, label)

    asked = {"attribute": attribute, "label": label}
    return _named(
        metric,
        f"judge_probability({attribute!r}, {label!r})",
        lambda: {"what": "judge_probability", "judge": judge_spec(judge), **asked},
    )


@checked
def judge_log_odds(judge: Classifier, attribute: str, label: str) -> Metric:
    """``log(p / (1 - p))`` of that probability, which 1e-6 and 1 less that bound: unlike p it has no ends."""

    def metric(outcome: Outcome) -> Tensor:
        return judge.probability(outcome.images, attribute, label).double().logit(1e-6)

    asked = {"attribute": attribute, "label": label}
    return _named(
        metric,
        f"judge_log_odds({attribute!r}, {label!r})",
        lambda: {"what": "judge_log_odds", "judge": judge_spec(judge), **asked},
    )


@checked
def latent_distance(reference: Tensor | None = None) -> Metric:
    """Root mean square difference of the final latents from reference latents, or from the clean run's.

    Needs no judge and decodes nothing. It falls as a run is restored, so read ``normalised`` (1 is restored).

    Args:
        reference: [sample, ...] or the latents of one sample; None is the clean run of each prompt and seed.
    """

    def metric(outcome: Outcome) -> Tensor:
        target = outcome.clean if reference is None else reference
        if target is None:
            raise UsageError("latent_distance needs reference latents: there is no clean run here")
        return (outcome.latents - target.to(outcome.latents)).square().flatten(1).mean(1).sqrt()

    name = "latent_distance(clean run)" if reference is None else "latent_distance(reference)"
    return _named(
        metric,
        name,
        lambda: {
            "what": "latent_distance",
            "reference": None if reference is None else tensor_hash(reference),
        },
        looks=False,
    )


@checked
def by_prompt(metrics: Mapping[str, Metric]) -> Metric:
    """Score each sample by the metric of its own clean prompt: one study of several attributes.

    Args:
        metrics: for each prompt its metric: ``{"a cook": judge_probability(judge, "concept", "cook")}``.

    Raises (where it scores):
        LookupError: for a prompt that has none.

    >>> by_prompt({"a cat": latent_distance()}).__name__
    'by_prompt(a cat: latent_distance(clean run))'
    """

    def metric(outcome: Outcome) -> Tensor:
        texts = [p.text for p in outcome.prompts]
        if unknown := [t for t in texts if t not in metrics]:
            raise NotFoundError(
                f"there is no metric for the prompt {unknown[0]!r}; {near(unknown[0], metrics)}"
            )
        found = torch.empty(len(texts), dtype=torch.float64, device=outcome.latents.device)
        for text in dict.fromkeys(texts):
            own = [i for i, t in enumerate(texts) if t == text]
            found[own] = metrics[text](outcome.some(own)).to(found)
        return found

    names = (f"{t}: {getattr(m, '__name__', repr(m))}" for t, m in metrics.items())
    return _named(
        metric,
        f"by_prompt({', '.join(names)})",
        lambda: {"what": "by_prompt", "metrics": {t: spec_of(m, "the metric") for t, m in metrics.items()}},
        looks=any(getattr(m, "looks", True) for m in metrics.values()),
    )


def measure(metric: Metric, outcome: Outcome) -> Float[Tensor, " sample"]:
    """Apply a metric and check what it returns.

    Raises:
        TypeError: if it does not return a tensor.
        ValueError: if it does not return one finite number for each sample.
    """
    with torch.no_grad():
        scores = metric(outcome)
    name, n = getattr(metric, "__name__", repr(metric)), len(outcome.latents)
    if not isinstance(scores, Tensor):
        raise WrongTypeError(
            f"the metric {name} returned {type(scores).__name__}; return a tensor of shape [{n}]"
        )
    if scores.shape != (n,):
        raise UsageError(
            f"the metric {name} returned shape {list(scores.shape)} for {n} samples; return [{n}]"
        )
    if not scores.isfinite().all():
        raise UsageError(f"the metric {name} returned NaN or infinite values: {scores.tolist()}")
    return scores


def check_differentiable(scores: object, metric: Metric, n: int, *, smooth: bool = True) -> None:
    """Raise the error that says what is wrong with a metric's scores of n samples, where gradients are asked.

    Args:
        scores: what it returned.
        metric: which one.
        n: how many samples there are.
        smooth: whether it has to have a gradient.

    Raises:
        TypeError: for anything but one number for each sample.
        ValueError: for scores without a gradient, NaN and infinite ones.
    """
    name = getattr(metric, "__name__", repr(metric))
    if not isinstance(scores, Tensor) or scores.shape != (n,):
        raise WrongTypeError(f"the metric {name} has to return a tensor of shape [{n}]")
    if smooth and not scores.requires_grad:
        raise UsageError(
            f"the metric {name} has no gradient (it rounds, counts, or detaches); take one that is smooth in "
            "the pictures: a judge's probability, a similarity, latent_distance()"
        )
    if not bool(scores.isfinite().all()):
        raise UsageError(f"the metric {name} returned NaN or infinite values: {scores.tolist()}")


def _named(metric: Metric, name: str, spec: Callable[[], Mapping[str, Any]], *, looks: bool = True) -> Metric:
    metric.__name__ = metric.__qualname__ = name  # provenance says what was measured
    metric.spec = spec  # type: ignore[attr-defined]  # and stores, what it is
    metric.looks = looks  # type: ignore[attr-defined]  # and plans, whether it asks for pictures
    return metric
