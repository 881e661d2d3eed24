"""What a judge has to answer, and judges that do not look."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from denoscope.analysis.judging import check_sees, fits

IMAGES = torch.linspace(0, 1, 4)[:, None, None, None].expand(4, 3, 2, 2)
STUDY = {"before": IMAGES.view(2, 2, 3, 2, 2), "after": 1 - IMAGES.view(2, 2, 3, 2, 2)}


def light(images: Tensor, texts: Sequence[str]) -> Tensor:
    return images.mean((1, 2, 3))[:, None] + torch.arange(len(texts))


def test_a_function_is_asked_and_its_answer_kept_without_gradient() -> None:
    said = fits(light, IMAGES.double().requires_grad_(), ["a", "b"])
    assert said.dtype == torch.float32 and not said.requires_grad
    assert torch.allclose(said[:, 0], torch.linspace(0, 1, 4)) and torch.allclose(said[:, 1] - 1, said[:, 0])


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        (torch.zeros(4), ValueError, r"returned shape \[4\] for 4 pictures and 2 texts; return \[4, 2\]"),
        (torch.zeros(2, 4), ValueError, r"returned shape \[2, 4\] for 4 pictures"),
        ([0.0] * 4, TypeError, r"'answer' returned list; return a tensor of shape \[4, 2\]"),
        (torch.full((4, 2), torch.inf), ValueError, "returned infinite values"),
    ],
)
def test_another_answer_is_refused(answer: object, error: type[Exception], said: str) -> None:
    from denoscope.models.judges import callable_judge

    with pytest.raises(error, match=said):
        fits(callable_judge(lambda *_: answer, "answer"), IMAGES, ["a", "b"])  # type: ignore[arg-type,return-value]


def test_no_opinion_is_an_answer() -> None:
    assert fits(lambda x, t: x.new_full((len(x), len(t)), torch.nan), IMAGES, ["a"]).isnan().all()


def scores(*values: float) -> Tensor:
    """The same answers, by text, for each of the study's pictures, [state, prompt, seed, text]."""
    return torch.tensor(values).expand(2, 2, 2, len(values)).clone()


@pytest.mark.parametrize("same", [(0.3, 0.7), (0.3, 0.3), (0.0, 0.0), (1.0, 1.0)])
def test_a_judge_that_says_the_same_of_all_pictures_is_named(same: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=r"'light' says the same of all pictures .* though these 8 pictures"):
        check_sees(light, scores(*same), STUDY)


def test_a_judge_that_tells_any_pictures_apart_is_none_of_these() -> None:
    said = scores(0.3, 0.7)
    said[1, 0, 1, 0] += 1e-7
    check_sees(light, said, STUDY)
    by_prompt = scores(0.3, 0.7)
    by_prompt[:, 1] += 0.1  # texts of another prompt: no proof that it looked
    with pytest.raises(ValueError, match="says the same"):
        check_sees(light, by_prompt, STUDY)


def test_what_may_well_be_the_same_is_let_pass() -> None:
    check_sees(light, scores(1.0, 0.0), STUDY)  # yes and no: all pictures may be fine
    check_sees(light, scores(torch.nan, torch.nan), STUDY)  # no opinion
    alike = {state: torch.zeros(2, 2, 3, 2, 2) for state in STUDY}
    check_sees(light, scores(0.3, 0.7), alike)  # so are the pictures
