"""What an edit leaves: the identities that each probe keeps, and the sheet."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from denoscope.analysis import Budget, Robustness, robustness
from denoscope.analysis.erasure.attacks import PROBES
from denoscope.analysis.erasure.seeing import Seeing
from denoscope.analysis.erasure.world import Meter, World
from denoscope.editing import quickfix, uce
from denoscope.models.errors import NotFoundError, UsageError
from denoscope.models.progress import quiet

SMALL = Budget(steps=(1, 2), tokens=(1,), starts=("about",), tuning=(1, 2), pictures=2, batch=2)


class Colours:
    """Sees a cat where a picture is red, a dog where it is blue."""

    vocabulary: ClassVar = {"animal": ("cat", "dog"), "style": ("noto",)}

    def similarity(self, images: torch.Tensor, texts: Any) -> torch.Tensor:
        return torch.stack([images[:, i % 3].mean((1, 2)) for i in range(len(texts))], 1)

    def probability(self, images: torch.Tensor, attribute: str, label: str) -> torch.Tensor:
        assert attribute == "animal"
        means = images.mean((2, 3))[:, [0, 2]]
        return (20 * means).softmax(1)[:, self.vocabulary["animal"].index(label)]


@pytest.fixture(scope="module")
def edit(tiny: Any) -> Any:
    return quickfix(tiny, {"cat": "dog"})


def tried(model: Any, changed: Any, *probes: str, **settings: Any) -> Robustness:
    given = {"judge": Colours(), "seeds": [0, 1], "steps": 2, "budget": SMALL, **settings}
    return robustness(model, changed, "cat", "dog", probes=probes, **given)


@pytest.fixture(scope="module")
def sheet(tiny: Any, edit: Any) -> tuple[Robustness, list[tuple[int, int, str]]]:
    """All probes, made once; and what was told of their progress."""
    told: list[tuple[int, int, str]] = []
    return tried(tiny, edit.applied, *PROBES, progress=lambda *a: told.append(a)), told


def unchanged(model: Any) -> Any:
    return nullcontext()


def trials(found: Robustness, probe: str, who: str = "edited") -> Any:
    frame = found.to_frame()
    return frame[(frame["probe"] == probe) & (frame["who"] == who)]


def test_nothing_changed_is_clean_to_the_bit_in_every_probe(tiny: Any) -> None:
    found = tried(tiny, unchanged, "paraphrase", "clean_embeddings", "completion")
    assert trials(found, "plain")["is_clean"].all()
    assert trials(found, "clean_embeddings")["is_clean"].all()
    assert trials(found, "completion")["is_clean"].all()
    own, control = trials(found, "paraphrase"), trials(found, "paraphrase", "clean")
    assert np.array_equal(own["mean"], control["mean"]) and len(own) >= 5
    assert own["recovered"].isna().all()  # there is nothing to recover


def test_clean_rows_are_the_clean_run_after_an_edit_of_the_text_encoder(sheet: Any) -> None:
    found, _ = sheet
    whole, alone = trials(found, "clean_embeddings")["is_clean"]
    assert found.reaches_clean and whole and not alone  # the empty text's rows have moved
    assert trials(found, "clean_embeddings")["recovered"].iloc[0] == pytest.approx(1)


def test_clean_rows_do_not_undo_an_edit_of_the_denoiser(tiny: Any) -> None:
    found = tried(tiny, uce(tiny, {"cat": "dog"}).applied, "clean_embeddings", guidance=1.0)
    assert not found.reaches_clean and len(trials(found, "clean_embeddings")) == 1  # no other branch


def test_a_completion_begins_as_the_edited_run_and_ends_as_the_clean_one(sheet: Any) -> None:
    found, _ = sheet
    own = trials(found, "completion")
    assert own["budget"].tolist() == [0, 1, 2]
    assert own["is_clean"].tolist() == [False, False, True]
    plain = trials(found, "plain")["mean"].item()
    assert own["mean"].iloc[0] == plain != own["mean"].iloc[1]


def test_attacks_without_a_learning_rate_are_the_edited_run_to_the_bit(tiny: Any, edit: Any) -> None:
    still = Budget(steps=(1, 2), tokens=(1,), starts=("about",), tuning=(1,), rate=0, tuning_rate=0, batch=2,
                   pictures=2)  # fmt: skip
    found = tried(tiny, edit.applied, "embedding", "relearn", budget=still)
    plain = found.data["pictures"].values[1]
    edited = (found.data["who"] == "edited") & (found.data["probe"] != "plain")
    assert int(edited.sum()) == 4
    assert all(np.array_equal(x, plain) for x in found.data["pictures"].values[edited.values])
    assert np.array_equal(found.data["shown"][1], found.data["shown"][edited.values][0])


def test_attacks_move_pictures_and_leave_the_model_as_it_was(tiny: Any, sheet: Any) -> None:
    found, _ = sheet  # the watch compares all weights and flags
    plain, shown = found.data["pictures"].values[1], found.data["pictures"].values
    edited = (found.data["who"] == "edited") & found.data["probe"].isin(["embedding", "relearn"])
    assert not any(np.array_equal(x, plain) for x in shown[edited.values])
    frame = found.to_frame().query("probe == 'embedding'")
    assert frame["rows"].tolist() == [2, 4, 2, 4] and frame["who"].tolist() == ["edited"] * 2 + ["clean"] * 2
    assert (frame["best"] >= frame["mean"]).all()


def test_pictures_of_the_concept_come_back_from_their_own_noise(tiny: Any, edit: Any) -> None:
    real = torch.rand(3, 3, *tiny.size)
    found = tried(tiny, edit.applied, "noised", "invert", pictures=real, seeds=[0, 1, 2, 3])
    assert trials(found, "invert")["psnr"].between(5, 60).all()
    assert trials(found, "noised")["budget"].tolist() == [0.5, 0.75]
    assert np.isnan(trials(found, "noised")["psnr"]).all()


def test_nothing_is_noised_at_strength_zero(tiny: Any, edit: Any) -> None:
    assert not len(trials(tried(tiny, edit.applied, "noised", steps=1), "noised"))


def test_the_best_of_two_is_never_worse(tiny: Any, edit: Any) -> None:
    one = tried(tiny, edit.applied, "clean_embeddings", seeds=range(6), steps=1)
    two = tried(tiny, edit.applied, "clean_embeddings", seeds=range(6), steps=1, budget=Budget(best_of=2))
    assert (two.data["shown"].values >= one.data["shown"].values - 1e-6).all()
    assert (two.data["shown"].values > one.data["shown"].values + 1e-6).any()
    assert two.data.attrs["best_of"] == 2


def test_a_word_never_learnt_is_a_control(tiny: Any, edit: Any) -> None:
    class Three(Colours):
        vocabulary: ClassVar = {"animal": ("cat", "dog", "bird")}

        def probability(self, images: torch.Tensor, attribute: str, label: str) -> torch.Tensor:
            at = self.vocabulary["animal"].index(label)
            return (20 * images.mean((2, 3))).softmax(1)[:, at]

    never = {"bird": torch.rand(2, 3, *tiny.size)}
    found = tried(tiny, edit.applied, "embedding", never=never, judge=Three(), steps=1)
    own = trials(found, "embedding", "never")
    assert len(own) == 2 and own["recovered"].isna().all()
    control = trials(found, "embedding", "clean")
    assert not np.allclose(own["mean"], control["mean"])


def test_what_recovered_means(sheet: Any) -> None:
    found, _ = sheet
    frame, shown = found.to_frame(), found.data["shown"]
    (before,), (after,) = (
        frame.query(f"probe == 'plain' and who == '{w}'")["mean"] for w in ("clean", "edited")
    )
    for row, values in zip(frame.itertuples(), shown.values, strict=True):
        if before > after:
            assert row.recovered == pytest.approx((values.mean() - after) / (before - after))
        else:
            assert np.isnan(row.recovered)
    assert before != after


def test_the_sheet_is_kept_and_shown(edit: Any, sheet: Any, tmp_path: Path) -> None:
    found, _ = sheet
    found.save(tmp_path / "sheet.zarr")
    again = Robustness.load(tmp_path / "sheet.zarr")
    assert again.to_frame().equals(found.to_frame()) and again.reaches_clean
    assert repr(again) == repr(found) and repr(found).startswith("Robustness(cat -> dog: ")
    assert "clean_embeddings" in found._repr_html_()
    assert list(found.bars()["measure"].values)[0] == "the prompt itself"
    assert len(found.plot().data) == 2
    assert set(found.strongest()["probe"]) == {*PROBES}
    assert found.data.attrs["change"]["id"] == edit.id


def test_progress_is_told_in_rows_with_an_estimate(sheet: Any) -> None:
    _, told = sheet
    done, total, what = told[-1]
    assert done == total and "min" in what
    assert max(d for d, _, _ in told[:-1]) > 0.8 * total  # what was counted before is what it took
    assert len({t for _, t, _ in told}) == 2  # known after the first runs


def test_a_guidance_scale_of_one_and_a_judge_of_texts(tiny: Any, edit: Any) -> None:
    def light(images: torch.Tensor, texts: Any) -> torch.Tensor:
        return torch.stack([(images.mean((1, 2, 3)) - i / 9).abs() for i in range(len(texts))], 1)

    found = tried(tiny, edit.applied, "paraphrase", judge=light, guidance=1.0, others=["bird"],
                  wordings={"description": "a small thing with fur"})  # fmt: skip
    assert set(np.unique(found.data["shown"])) <= {0, 1}
    assert "description" in set(trials(found, "paraphrase")["attack"])
    assert found.data.attrs["measure"] == "share of pictures that it fits best"


def test_probabilities_are_asked_for_where_the_judge_has_both_labels() -> None:
    assert Seeing(Colours(), "a {}", ["cat", "dog"], ()).attribute == "animal"
    assert Seeing(Colours(), "a {}", ["cat", "bird"], ()).attribute is None


@pytest.mark.parametrize(
    ("wrong", "error", "told"),
    [
        ({"probes": ["paraphrases"]}, NotFoundError, "did you mean 'paraphrase'"),
        ({"probes": []}, UsageError, "give some of paraphrase"),
        ({"instead": "Cat"}, UsageError, "both 'cat'"),
        ({"seeds": [0, 0]}, UsageError, "each once"),
        ({"template": "a cat"}, UsageError, "{}"),
        ({"about": "猫"}, NotFoundError, "猫"),
        ({"batch": 0}, UsageError, "1 or more"),
    ],
)
def test_what_cannot_be_asked(tiny: Any, edit: Any, wrong: Any, error: Any, told: str) -> None:
    given = {"about": "cat", "instead": "dog", "judge": Colours(), "seeds": [0], "steps": 1,
             "probes": ["clean_embeddings"], **wrong}  # fmt: skip
    with pytest.raises(error, match=told.replace("{}", r"\{\}")):
        robustness(tiny, edit.applied, **given)


def test_a_judge_that_does_not_look(tiny: Any, edit: Any) -> None:
    with pytest.raises(UsageError, match="does not look at them"):
        tried(tiny, edit.applied, "clean_embeddings", judge=lambda x, t: x.new_full((len(x), len(t)), 0.3))


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": ()},
        {"steps": (3, 2)},
        {"tokens": (0,)},
        {"starts": ("nowhere",)},
        {"batch": 0},
        {"rate": -1.0},
    ],
)
def test_budgets_that_make_no_sense(wrong: Any) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Budget(**wrong)


def test_a_store_of_something_else_is_refused(tiny: Any, tmp_path: Path) -> None:
    import xarray as xr

    from denoscope.analysis.scores import save_store

    save_store(xr.Dataset({"x": ("y", [1.0])}), tmp_path / "other.zarr")
    with pytest.raises(UsageError, match="no robustness"):
        Robustness.load(tmp_path / "other.zarr")


def test_pictures_painted_together_are_those_painted_alone(tiny):
    world = World(
        tiny, unchanged, "cat", "dog", "a {}", {}, [], None, {}, [3, 5], 2, None, 4, SMALL, Meter(quiet)
    )
    readings = [world.read(text) for text in ("a cat", "a small red dog", "CATS")]
    together = world.paint_together(readings)
    assert [len(images) for images in together] == [2, 2, 2]
    for images, reading in zip(together, readings, strict=True):
        torch.testing.assert_close(images, world.paint(reading), rtol=0, atol=1e-5)
    assert world.paint_together([]) == []
