"""Edit evaluation: counted by hand, a perfect edit seen as one, nothing seen where nothing was changed."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import denoscope
from denoscope import Edit
from denoscope.analysis.edit_evaluation.evaluate import EditEvaluation, evaluate_edit, judged
from denoscope.analysis.edit_evaluation.prompts import EvaluationPrompt, evaluation_prompts
from denoscope.analysis.scores import load_store, save_store
from denoscope.models.synthetic.tiny import tiny_sd
from denoscope.models.synthetic.tiny_families import tiny_sd3

LEVELS = {"cat": 0.2, "dog": 0.5, "red": 0.8}


class Brightness:
    """A judge that takes a picture for the word whose brightness it has."""

    def similarity(self, images: Tensor, texts: list[str]) -> Tensor:
        wanted = torch.tensor([next(v for word, v in LEVELS.items() if word in t.split()) for t in texts])
        return 1 - (images.mean((1, 2, 3))[:, None] - wanted).abs()


ASKED = evaluation_prompts({"cat": "dog"}, ["a {}"], ["one {}", "my {}"], {"red": ["a {} emoji"]})
SEEDS = [3, 5]


def painted(rows: list[list[str]]) -> Tensor:
    levels = torch.tensor([[LEVELS[word] for word in row] for row in rows])
    return levels[:, :, None, None, None].expand(-1, -1, 3, 4, 4)


def example() -> EditEvaluation:
    before = painted([["cat", "cat"], ["cat", "dog"], ["cat", "red"], ["red", "red"]])
    after = painted([["dog", "dog"], ["dog", "cat"], ["dog", "red"], ["red", "dog"]])
    oracle = painted([["dog", "dog"], ["dog", "dog"], ["dog", "red"], ["red", "red"]])
    return judged(
        {"before": before, "after": after, "oracle": oracle}, ASKED, Brightness(), SEEDS, {"steps": 7}
    )


def test_data_of_older_versions_is_read() -> None:
    """They call the dimension of the prompts ``question``."""
    found = example()
    old = EditEvaluation(found.data.rename(evaluation_prompt="question"), found.images)
    assert old.summary().equals(found.summary())


def test_shares_are_those_counted_by_hand() -> None:
    table = example().summary().set_index(["kind", "measure", "state"])["mean"]
    want = {
        ("efficacy", "shown"): (0, 1, 1),
        ("efficacy", "gone"): (0, 1, 1),
        ("generality", "shown"): (0.25, 0.5, 0.75),
        ("generality", "gone"): (0.5, 0.75, 1),
        ("specificity", "shown"): (1, 0.5, 1),
    }
    for (kind, measure), values in want.items():
        assert tuple(table[kind, measure, s] for s in ("before", "after", "oracle")) == pytest.approx(
            values
        ), (kind, measure)
    assert ("specificity", "gone", "after") not in table
    assert table["efficacy", "fit", "after"] == pytest.approx(1) and table[
        "efficacy", "fit", "before"
    ] == pytest.approx(0.7)
    moved = {kind: table[kind, "moved", "after"] for kind in ("efficacy", "generality", "specificity")}
    assert moved == pytest.approx(
        {"efficacy": 0.3, "generality": (0.3 + 0.3 + 0.3 + 0) / 4, "specificity": 0.15}
    )
    assert ("efficacy", "moved", "before") not in table


def test_intervals_hold_the_mean_and_are_wide_where_pictures_differ() -> None:
    table = (
        example().summary().query("kind == 'generality' and measure == 'shown' and state == 'after'").iloc[0]
    )
    assert table["low"] <= table["mean"] <= table["high"] and table["high"] - table["low"] > 0.4
    narrower = (
        example()
        .summary(level=0.5)
        .query("kind == 'generality' and measure == 'shown' and state == 'after'")
        .iloc[0]
    )
    assert narrower["high"] - narrower["low"] < table["high"] - table["low"]


def test_one_row_for_each_picture() -> None:
    frame = example().to_frame()
    assert len(frame) == 4 * 2 * 3
    one = frame.query("prompt == 'one cat' and seed == 5 and state == 'after'").iloc[0]
    assert (one["kind"], one["target"], one["shown"], one["gone"], one["moved"]) == (
        "generality",
        "dog",
        0,
        0,
        pytest.approx(0.3),
    )
    assert example().data.attrs["steps"] == 7
    assert (
        repr(example())
        == "EditEvaluation(efficacy 100%, generality 50%, specificity 50%; 4 prompts x 2 seeds)"
    )


@pytest.fixture(scope="module")
def model() -> Any:
    return denoscope.load(tiny_sd())


def perfect(model: Any) -> Edit:
    """Give the token "cat" the embedding of "dog": then the model cannot tell the two words apart."""
    (name, table), tokenizer = (
        next(iter(model.weights("text_encoder/embed/tokens").items())),
        model.pipe.tokenizer,
    )
    cat, dog = (tokenizer(word).input_ids[1] for word in ("cat", "dog"))
    delta = torch.zeros(table.shape, dtype=torch.float64)
    delta[cat] = table[dog].detach().double() - table[cat].detach().double()
    return Edit.of(model, {name: delta})


RUN = {"judge": Brightness(), "seeds": SEEDS, "steps": 2, "guidance": 3.0}


def test_a_perfect_edit_gives_the_oracles_pictures_and_moves_nothing_else(model: Any) -> None:
    found = evaluate_edit(model, perfect(model).applied, ASKED, **RUN)
    edited, others = slice(0, 3), slice(3, 4)
    torch.testing.assert_close(
        found.images["after"][edited], found.images["oracle"][edited], rtol=0, atol=1e-5
    )
    assert torch.equal(found.images["after"][others], found.images["before"][others])
    assert torch.equal(found.images["oracle"][others], found.images["before"][others])
    assert float(found.data["moved"][edited].min()) > 1e-4 and float(found.data["moved"][others].max()) == 0


def test_no_change_moves_nothing(model: Any) -> None:
    found = evaluate_edit(model, lambda _: nullcontext(), ASKED, **RUN)
    assert torch.equal(found.images["after"], found.images["before"])
    assert float(found.data["moved"].max()) == 0
    shown = found.measures()["shown"]
    assert np.array_equal(shown.sel(state="after"), shown.sel(state="before"))


def test_pictures_are_those_of_single_runs(model: Any) -> None:
    edit = perfect(model)
    found = evaluate_edit(model, edit.applied, ASKED, **RUN)
    plain = denoscope.trace(model, ["my cat"], seeds=[5], steps=2, guidance=3.0).images[0]
    with edit.applied(model):
        edited = denoscope.trace(model, ["my cat"], seeds=[5], steps=2, guidance=3.0).images[0]
    torch.testing.assert_close(found.images["before"][2, 1], plain, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.images["after"][2, 1], edited, rtol=0, atol=1e-5)


def test_a_function_judges_and_is_named_and_one_that_does_not_look_is_told(model: Any) -> None:
    edit, one = perfect(model).applied, {**RUN, "seeds": [3]}
    found = evaluate_edit(model, edit, ASKED, **{**one, "judge": Brightness().similarity})
    assert found.data["fit"].equals(evaluate_edit(model, edit, ASKED, **one).data["fit"])
    assert found.data.attrs["judge"] == {"name": "Brightness.similarity", "kind": "a function"}

    def blind(images: Tensor, texts: list[str]) -> Tensor:
        return torch.linspace(0.1, 0.9, len(texts)).expand(len(images), -1)

    with pytest.raises(ValueError, match="blind' says the same of all pictures of a prompt, 0.1 for example"):
        evaluate_edit(model, edit, ASKED, **{**one, "judge": blind})
    with pytest.raises(ValueError, match=r"returned shape \[1\] for 1 pictures and 3 texts; return \[1, 3\]"):
        evaluate_edit(model, edit, ASKED, **{**one, "judge": lambda images, _: images.mean((1, 2, 3))})
    with pytest.raises(TypeError, match="judge is 'clip'"):
        evaluate_edit(model, edit, ASKED, **{**one, "judge": "clip"})


def test_the_change_is_made_once_and_ends(model: Any) -> None:
    states: list[str] = []

    @contextmanager
    def change(_: Any) -> Any:
        states.append("on")
        try:
            yield
        finally:
            states.append("off")

    evaluate_edit(model, change, ASKED, **RUN)
    assert states == ["on", "off"]
    states.clear()
    with pytest.raises(RuntimeError, match="stop"):
        evaluate_edit(model, change, ASKED, **RUN, progress=_stopping(20))
    assert states == ["on", "off"]


def _stopping(at: int) -> Any:
    def progress(done: int, _: int, __: str, /) -> None:
        if done >= at:
            raise RuntimeError("stop")

    return progress


def test_progress_counts_every_distinct_run_once(model: Any) -> None:
    seen: list[tuple[int, int, str]] = []
    evaluate_edit(model, lambda _: nullcontext(), ASKED, **RUN, progress=lambda *x: seen.append(x))
    runs = 2 * (4 + 3 + 4)  # before; oracle, where it is another text; the same again after the change
    assert seen[-1][:2] == (runs, runs) and seen == sorted(seen)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: EvaluationPrompt("efficiency", "a {}", "cat", "dog"),
            "kind is 'efficiency'; it is 'efficacy', ",
        ),
        (lambda: EvaluationPrompt("efficacy", "a cat", "cat", "dog"), "'a cat' needs exactly one {}"),
        (lambda: EvaluationPrompt("efficacy", "a {}", "cat"), "an edited word shows something else"),
        (
            lambda: EvaluationPrompt("specificity", "a {}", "cat", "dog"),
            "a neighbourhood prompt shows itself",
        ),
    ],
)
def test_questions_that_ask_nothing_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_runs_that_cannot_be_made_are_refused(model: Any) -> None:
    change = nullcontext
    with pytest.raises(ValueError, match=r"prompts is \[\]"):
        evaluate_edit(model, change, [], **RUN)
    with pytest.raises(ValueError, match=r"seeds is \[1, 1\]; give at least one, each once"):
        evaluate_edit(model, change, ASKED, **{**RUN, "seeds": [1, 1]})
    with pytest.raises(ValueError, match="steps is 0"):
        evaluate_edit(model, change, ASKED, **{**RUN, "steps": 0})


@pytest.mark.parametrize("place", [("猫", "dog"), ("cat", "猫")])
def test_words_that_a_tokenizer_does_not_know_are_refused(model: Any, place: tuple[str, str]) -> None:
    """Every such word is read alike, so the judge's answer would be about none."""
    said, meant = place
    for opened, encoder in ((model, "text_encoder"), (denoscope.load(tiny_sd3()), "text_encoder_3")):
        known = evaluation_prompts({"cat": "dog"}, ["a {}"])
        unknown = [EvaluationPrompt("efficacy", "one {}", said, meant)]
        with pytest.raises(LookupError, match="text_encoder.*does not know '猫'"):
            evaluate_edit(opened, nullcontext, [*known, *unknown], **RUN)
        assert encoder in opened.text_encoders


def test_provenance_is_whole_and_names_the_edit(model: Any, tmp_path: Path) -> None:
    edit = perfect(model)
    found = evaluate_edit(model, edit.applied, ASKED[:1], **RUN)
    about = found.data.attrs
    assert about["change"] == {"what": repr(edit), "id": edit.id}
    assert about["guidance"] == 3.0 and about["scheduler_config"]["num_train_timesteps"]
    assert set(about) >= {"weights", "numerics", "versions", "size", "dtype", "device"}
    save_store(found.data, tmp_path / "found")
    assert load_store(tmp_path / "found").attrs == about
