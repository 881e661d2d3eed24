"""``denoscope studies``: what a store holds, and its scores as tables that other programs read."""

import json

import pandas as pd
import pytest
import torch
import xarray as xr

from denoscope.analysis.scores import load_store
from denoscope.models.store.studies import read_studies
from denoscope.models.store.study import studying
from tests.denoscope.cli.calling import call, one_line


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A folder of two stores: one study that is done, with what it took on the way, and one that is not."""
    folder = tmp_path_factory.mktemp("runs")
    with studying(folder / "a", {"weights": "w"}, "trace_text", {}, units=2, about={"metric": "m"}) as study:
        for seed in range(2):
            study.inside.make({"inner": seed}, lambda: ({"latents": torch.ones(5)}, 7))
            study.inside.make(
                {"fit": seed}, lambda: ({"fit": torch.tensor([[0.25, 0.5]])}, 0), {"texts": ["é"]}
            )
            scores = {"scores": torch.arange(3).double() / 4 + seed}
            study.make({"seed": seed}, lambda found=scores: (found, 10), {"seed": seed})

    def stop():
        raise KeyboardInterrupt

    with (
        pytest.raises(KeyboardInterrupt),
        studying(folder / "b", {"weights": "w"}, "trace_text", {}, units=4) as study,
    ):
        study.make({"seed": 0}, lambda: ({"scores": torch.ones(3)}, 10))
        study.make({"seed": 1}, stop)
    return folder


READ = {
    "parquet": pd.read_parquet,
    "nc": lambda path: xr.load_dataset(path, engine="scipy").to_dataframe(),
    "zarr": lambda path: load_store(path).to_dataframe(),
}


@pytest.mark.parametrize("kind", READ)
def test_scores_are_written_for_others_to_read(kept, tmp_path, kind):
    path = tmp_path / f"scores.{kind}"
    result = call("studies", kept, "--export", path, "--quiet")
    assert result.exit_code == 0 and result.stdout.strip() == str(path)
    frame = READ[kind](path)
    assert len(frame) == 2 * 3 + 2 * 2 + 3  # no latents
    ours = frame[(frame.array == "scores") & frame.store.str.endswith("a")]
    assert list(ours.value) == [0, 0.25, 0.5, 1, 1.25, 1.5]
    assert [json.loads(told)["seed"] for told in ours.about] == [0, 0, 0, 1, 1, 1]
    assert list(ours.position) == [0, 1, 2, 0, 1, 2] and set(ours.what) == {"trace_text"}
    assert set(frame[frame.array == "fit"].about) == {'{"texts": ["\\u00e9"]}'}
    again = call("studies", kept, "--export", path)
    one_line(again, 2, "exists")


def test_it_tells_how_far_and_how_long_still(kept):
    told = json.loads(call("studies", kept, "--json").stdout)["studies"]
    done, other = told
    assert (done["done"], done["units"], done["total"], done["left"]) == (True, 2, 2, 0)
    assert (other["done"], other["units"], other["total"]) == (False, 1, 4) and other["rows"] == 10
    assert other["left"] == pytest.approx(3 * other["seconds"]) and done["about"] == {"metric": "m"}
    shown = call("studies", kept).stdout
    assert read_studies(kept)[1].id[:8] in shown and "1 of 4" in shown and "not done" in shown


def test_what_cannot_be_written_or_read_is_told(kept, tmp_path):
    one_line(call("studies", kept, "--export", tmp_path / "a.csv"), 2, ".parquet, .nc, .zarr")
    one_line(call("studies", tmp_path / "none"), 2, "there is no store in")
    with studying(tmp_path / "s", {"weights": "w"}, "sweep", {}, units=1) as study:
        study.make({"seed": 0}, lambda: ({"latents": torch.ones(3)}, 10))
    one_line(call("studies", tmp_path / "s", "--export", tmp_path / "a.nc"), 2, "holds no scores yet")
    assert not (tmp_path / "a.nc").exists()
