"""Scores: means, ranking, tables, and going to disk and back."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from denoscope.analysis.scores import Scores, save_store
from denoscope.models.errors import NotFoundError, UsageError
from denoscope.models.site import Site

SITES = ["unet/mid.attn.0.0/mlp.out", "unet/mid.attn.0.0/self_attn.out"]


def scores(**settings: xr.DataArray) -> Scores:
    base = np.array([[0.0, 3.0, 1.0], [2.0, 0.0, 2.5]])  # site x token
    noise = np.array([-1.0, 0.0, 1.0, 0.0]).reshape(2, 2)  # prompt x seed, mean zero
    coords = {"site": SITES, "token": ["1:a", "2:red", "3:cat"], "seed": [7, 8]}
    values = base[:, :, None, None] + noise
    dims = ("site", "token", "prompt", "seed")
    return Scores(xr.DataArray(values, dims=dims, coords=coords, attrs={"model": "tiny"}), **settings)


def test_mean_is_over_repetitions_and_keeps_places() -> None:
    mean = scores().mean()
    assert mean.dims == ("site", "token")
    assert mean.sel(site=SITES[1], token="3:cat") == 2.5


def test_best_top_and_table_agree() -> None:
    s = scores()
    assert s.best() == {"site": SITES[0], "token": "2:red", "mean": 3.0}
    assert s.top(2) == [Site(SITES[0]), Site(SITES[1])]
    frame = s.to_frame()
    assert list(frame.columns) == ["site", "token", "mean", "low", "high"]
    assert frame["mean"].tolist() == [3.0, 2.5, 2.0, 1.0, 0.0, 0.0]
    assert (frame["low"] < frame["mean"]).all() and (frame["mean"] < frame["high"]).all()


def test_top_counts_a_site_by_its_best_token_not_by_its_worst() -> None:
    values = xr.DataArray([[0.0, 3.0], [2.0, 2.5]], dims=("site", "token"), coords={"site": SITES})
    assert Scores(values).top(2) == [Site(SITES[0]), Site(SITES[1])]
    assert Scores(-values).top(1) == [Site(SITES[0])]


def test_the_denominator_divides_the_means() -> None:
    below = xr.DataArray([[1.0, 3.0], [5.0, 7.0]], dims=("prompt", "seed"))
    assert scores(denominator=below).mean().sel(site=SITES[0], token="2:red") == 0.75
    interval = scores(denominator=below).interval()
    xr.testing.assert_allclose(interval["mean"], scores().mean() / 4)


def test_interval_over_some_repetitions_takes_the_others_as_fixed() -> None:
    s = scores()
    over_seeds = s.interval(over=["seed"])
    xr.testing.assert_allclose(over_seeds["mean"], s.mean())
    # averaged over prompts, the noise is 0 for both seeds: nothing varies
    assert np.allclose(over_seeds["low"], s.mean())
    assert (s.interval(over=["prompt"])["low"] < s.mean()).all()


@pytest.mark.parametrize("divided", [True, False])
def test_saved_and_loaded_is_the_same(tmp_path: Path, divided: bool) -> None:
    below = {"denominator": xr.DataArray([[1.0, 3.0], [5.0, 7.0]], dims=("prompt", "seed"))}
    s = scores(**below if divided else {})
    s.save(tmp_path / "scores.zarr")
    back = Scores.load(tmp_path / "scores.zarr")
    xr.testing.assert_equal(back.values, s.values)
    assert back.values.attrs == {"model": "tiny"}
    xr.testing.assert_equal(back.interval(), s.interval())
    assert [p.name for p in tmp_path.iterdir()] == ["scores.zarr"]


def test_stores_of_older_versions_are_read(tmp_path: Path) -> None:
    """They call the denominator ``per``; without it the means would be of other units, without a word."""
    below = xr.DataArray([2.0, 4.0], dims="seed")
    s = scores(denominator=below)
    save_store(xr.Dataset({"values": s.values, "per": below}), tmp_path / "old.zarr")
    xr.testing.assert_equal(Scores.load(tmp_path / "old.zarr").mean(), s.mean())


def test_a_store_is_not_overwritten(tmp_path: Path) -> None:
    scores().save(tmp_path / "scores.zarr")
    with pytest.raises(FileExistsError, match="scores.zarr exists; name a new folder"):
        scores().save(tmp_path / "scores.zarr")


def test_a_failed_save_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        (tmp_path / "scores.zarr.part").mkdir()
        raise OSError("No space left on device")

    monkeypatch.setattr(xr.Dataset, "to_zarr", full)
    with pytest.raises(OSError, match="No space left"):
        scores().save(tmp_path / "scores.zarr")
    assert list(tmp_path.iterdir()) == []


def test_loading_nothing_something_else_or_a_damaged_store(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no store at"):
        Scores.load(tmp_path / "none.zarr")
    scores().save(tmp_path / "scores.zarr")
    (tmp_path / "scores.zarr" / "values" / ".zarray").write_text("{ cut")
    with pytest.raises(ValueError, match=r"could not read .*scores.zarr.* values is not what was written"):
        Scores.load(tmp_path / "scores.zarr")


def test_a_lost_chunk_is_not_read_as_zeros(tmp_path: Path) -> None:
    path = tmp_path / "scores.zarr"
    scores().save(path)
    with xr.open_zarr(path) as found:  # a plain call, without a warning
        assert found["values"].dims == ("site", "token", "prompt", "seed")
    next(p for p in (path / "values").iterdir() if p.name[0] != ".").unlink()
    with pytest.raises(ValueError, match="values is not what was written; make it again"):
        Scores.load(path)


def test_other_datasets_are_no_scores(tmp_path: Path) -> None:
    save_store(xr.Dataset({"values": ("i", [1.0])}), tmp_path / "other.zarr")
    with pytest.raises(ValueError, match=r"holds \['values'\], not scores"):
        Scores.load(tmp_path / "other.zarr")
    xr.Dataset({"values": ("site", [1.0])}).to_zarr(tmp_path / "foreign.zarr", zarr_format=2)
    with pytest.raises(ValueError, match=r"holds no dataset: it has no manifest"):
        Scores.load(tmp_path / "foreign.zarr")


def test_the_best_of_many_is_confirmed_by_what_did_not_pick_it() -> None:
    """Sixty places without any effect: the picked one looks real, and the other half says that it is not."""
    rng = np.random.default_rng(0)
    lucky = covered = 0
    for _ in range(40):
        values = xr.DataArray(rng.normal(0, 1, (60, 12)), dims=("site", "seed"))
        scores = Scores(values.assign_coords(site=[f"unet/mid.attn.{i}.0/cross_attn.out" for i in range(60)]))
        lucky += float(scores.to_frame()["low"].iloc[0]) > 0
        row = scores.confirmed().iloc[0]
        covered += row["low"] <= 0 <= row["high"]
        assert row["picked"] == pytest.approx(float(values[:, :6].mean("seed").max()))
    assert lucky > 25 and covered >= 34


def test_confirming_needs_two_halves() -> None:
    values = xr.DataArray(np.zeros((2, 3)), {"site": ["unet/a/b", "unet/a/c"]}, ("site", "seed"))
    with pytest.raises(ValueError, match="the scores have 3 seeds; to pick and to confirm"):
        Scores(values).confirmed()
    with pytest.raises(LookupError, match="the scores have no 'draw'; they repeat over seed"):
        Scores(values).confirmed(over="draw")


def test_groups_of_prompts_are_told_apart() -> None:
    values = xr.DataArray(
        [[[1.0, 3.0], [10.0, 10.0]], [[0.0, 0.0], [20.0, 22.0]]],
        dims=("site", "prompt", "seed"),
        coords={"site": SITES, "prompt": ["a red cat", "a flat dog"], "seed": [0, 1]},
    )
    frame = Scores(values).grouped({"colour": ["a red cat"], "style": ["a flat dog"]})
    assert list(frame.columns) == ["group", "site", "mean", "low", "high"]
    assert frame["group"].tolist() == ["colour", "colour", "style", "style"]
    assert frame["mean"].tolist() == [2.0, 0.0, 21.0, 10.0]
    below = xr.DataArray(
        [[2.0, 2.0], [10.0, 10.0]], dims=("prompt", "seed"), coords=values.coords["prompt"].coords
    )
    assert Scores(values, below).grouped({"style": ["a flat dog"]})["mean"].tolist() == [2.1, 1.0]
    with pytest.raises(NotFoundError, match="no prompt 'a red dog'"):
        Scores(values).grouped({"colour": ["a red dog"]})
    with pytest.raises(UsageError, match="name prompts"):
        Scores(values).grouped({"colour": []})
