"""Metrics: what they ask of a judge, what they decode, and what they refuse."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from denoscope.analysis.metrics import (
    Outcome,
    by_prompt,
    clip_score,
    judge_probability,
    latent_distance,
    measure,
    text_fit,
)
from denoscope.models.errors import NotFoundError
from denoscope.models.text.prompt import Prompt


class FakeJudge:
    """Remembers what it was asked; scores a picture by its mean."""

    def __init__(self) -> None:
        self.asked: list[object] = []

    def clip_score(self, images: Tensor, texts: Sequence[str]) -> Tensor:
        self.asked.append(list(texts))
        return images.flatten(1).mean(1)

    def probability(self, images: Tensor, attribute: str, label: str) -> Tensor:
        self.asked.append((attribute, label))
        return 1 - images.flatten(1).mean(1)


def outcome(**settings: object) -> Outcome:
    prompts = tuple(Prompt(t, (), embeds=torch.zeros(0, 0)) for t in ("a cat", "a dog"))
    latents = torch.stack([torch.full((4, 2, 2), 0.25), torch.full((4, 2, 2), 0.75)])
    return Outcome(latents, prompts, lambda x: x[:, :3], **settings)  # type: ignore[arg-type]


def test_clip_score_reads_the_text_or_each_prompt() -> None:
    judge = FakeJudge()
    own = measure(clip_score(judge), outcome())
    measure(clip_score(judge, "a red heart"), outcome())
    assert judge.asked == [["a cat", "a dog"], ["a red heart"] * 2]
    assert own.tolist() == [0.25, 0.75]


def test_text_fit_takes_a_function_and_asks_each_text_once() -> None:
    asked: list[list[str]] = []

    def judge(images: Tensor, texts: Sequence[str]) -> Tensor:
        asked.append(list(texts))
        return images.mean((1, 2, 3))[:, None] + torch.tensor([float(t == "a dog") for t in texts])

    assert measure(text_fit(judge), outcome()).tolist() == [0.25, 1.75]
    assert measure(text_fit(judge, "a cat"), outcome()).tolist() == [0.25, 0.75]
    assert asked == [["a cat", "a dog"], ["a cat"]]
    assert text_fit(judge, "x").__name__ == "text_fit('x')"
    with pytest.raises(ValueError, match=r"judge.* returned shape \[2\] for 2 pictures and 2 texts"):
        measure(text_fit(lambda images, _: images.mean((1, 2, 3))), outcome())


def test_judge_probability() -> None:
    judge = FakeJudge()
    assert measure(judge_probability(judge, "concept", "cat"), outcome()).tolist() == [0.75, 0.25]
    assert judge.asked == [("concept", "cat")]


def test_latent_distance_is_the_rms_difference_and_decodes_nothing() -> None:
    clean = torch.zeros(2, 4, 2, 2)
    silent = Outcome(outcome().latents, outcome().prompts, lambda x: pytest.fail("decoded"), clean)
    assert measure(latent_distance(), silent).tolist() == [0.25, 0.75]
    assert measure(latent_distance(torch.full((4, 2, 2), 0.75)), silent).tolist() == [0.5, 0.0]


@pytest.mark.misshapen
def test_pictures_are_decoded_once() -> None:
    calls: list[int] = []

    def decode(x: Tensor) -> Tensor:
        calls.append(len(x))
        return x

    seen = Outcome(outcome().latents, outcome().prompts, decode)
    assert seen.images is seen.images and calls == [2]


def test_names_say_what_was_measured() -> None:
    judge = FakeJudge()
    metrics = (clip_score(judge), clip_score(judge, "x"), judge_probability(judge, "gender", "woman"))
    names = [m.__name__ for m in metrics]  # type: ignore[attr-defined]
    assert names == ["clip_score(own prompt)", "clip_score('x')", "judge_probability('gender', 'woman')"]


@pytest.mark.parametrize(
    ("scores", "error", "words"),
    [
        (torch.zeros(2, 1), ValueError, r"returned shape \[2, 1\] for 2 samples; return \[2\]"),
        (torch.tensor([0.0, float("nan")]), ValueError, "NaN"),
        ([0.0, 1.0], TypeError, "returned list"),
    ],
)
def test_refuses_what_is_no_score(scores: object, error: type, words: str) -> None:
    def mine(_: Outcome) -> Tensor:
        return scores  # type: ignore[return-value]

    with pytest.raises(error, match=f"the metric mine .*{words}"):
        measure(mine, outcome())


def test_latent_distance_needs_something_to_compare_with() -> None:
    with pytest.raises(ValueError, match="there is no clean run here"):
        measure(latent_distance(), outcome())


def test_each_prompt_has_its_own_metric() -> None:
    judge = FakeJudge()
    metric = by_prompt({"a dog": judge_probability(judge, "concept", "dog"), "a cat": clip_score(judge)})
    assert measure(metric, outcome()).tolist() == [0.25, 0.25]  # the cat's mean, one less the dog's
    assert judge.asked == [["a cat"], ("concept", "dog")]
    clean = torch.zeros(2, 4, 2, 2)
    apart = by_prompt({"a cat": latent_distance(), "a dog": latent_distance()})
    assert measure(apart, outcome(clean=clean)).tolist() == [0.25, 0.75]


def test_a_prompt_without_a_metric_is_named() -> None:
    with pytest.raises(NotFoundError, match="no metric for the prompt 'a cat'"):
        measure(by_prompt({"a dog": latent_distance()}), outcome())
