"""Every result draws itself, tells its numbers and shows itself; what a figure says is what a table says."""

from __future__ import annotations

import ast
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from denoscope.analysis import plots
from denoscope.analysis.carriers.channels import Channels
from denoscope.analysis.carriers.special_tokens import SpecialTokens
from denoscope.analysis.circuits.result import Circuit
from denoscope.analysis.directions.scoring import DirectionScore
from denoscope.analysis.directions.steering import Steering
from denoscope.analysis.features.bias_result import BiasFeatures
from denoscope.analysis.features.latent_groups import LatentGroups
from denoscope.analysis.localisation.racing import Race
from denoscope.analysis.scores import Scores
from denoscope.atlas.result import Atlas
from denoscope.bias.result import BiasStudy
from denoscope.editing.explaining import Explanation
from denoscope.editing.methods.balancing import Balance
from denoscope.models.site import Site
from denoscope.probes.dictionary.matching import Stability
from denoscope.report.changes import MAIN, Changes
from tests.models.test_html import harmless

ROOT = Path(__file__).parents[3]
EVIL = "<script>x</script>"
NAN = float("nan")
VALUES = {"Direction", "Dictionary"}
"""What is no result, but a part of a model or an edit; it shows itself, and draws nothing."""
A, B = "unet/down.0/resid.post", "unet/mid/resid.post"


def numbers(*shape: int) -> Any:
    return np.random.default_rng(0).random(shape)


def bias_features() -> BiasFeatures:
    over = ("step", "class", "feature")
    data = {
        "score": (over, numbers(3, 2, 4)),
        "right": (("step", "sample"), np.array([[1, 0, 1, 1], [1, 1, 1, 1], [0, 1, 0, 1]], float)),
        "shuffled": (("step", "sample"), np.array([[1, 0, 0, 1]] * 3, float)),
        "activity": (("sample", "feature"), numbers(4, 4)),
        "contrast": (("class", "feature"), numbers(2, 4)),
        "level": ("feature", numbers(4)),
        "gap": (("step", "class", "token"), numbers(3, 2, 2)),
        "label": ("sample", ["woman", "man", "woman", "man"]),
    }
    attrs = {"site": A, "dictionary": "d", "baseline": "pair"}
    return BiasFeatures(xr.Dataset(data, {"step": [0, 1, 2], "class": ["woman", EVIL]}, attrs))


def steering() -> Steering:
    coords = {"way": ["direction", "random"], "strength": [-1.0, 0.0, 1.0], "metric": ["fit", "moved"],
              "prompt": ["a", "b"], "seed": [0, 1], "other": ["plain", EVIL]}  # fmt: skip
    steered = ("way", "strength", "metric", "prompt", "seed"), numbers(2, 3, 2, 2, 2)
    beside = ("other", "metric", "prompt", "seed"), numbers(2, 2, 2, 2)
    return Steering(xr.Dataset({"steered": steered, "beside": beside}, coords))


def circuit() -> Circuit:
    edges = ("source", "target")
    data = {
        "predicted": (edges, numbers(2, 3)),
        "measured": (edges, numbers(2, 3)),
        "kept": (edges, np.array([[1, 0, 1], [0, 0, 1]])),
        "carried": ("target", numbers(3)),
        "other_predicted": (("other", "target"), numbers(2, 3)),
        "other_measured": (("other", "target"), numbers(2, 3)),
        "necessary": ("circuit", numbers(3)),
        "sufficient": ("circuit", numbers(3)),
    }
    attrs = {"through_targets": 0.5, "gap": 0.0, "word": "cat", "prompt": EVIL, "source_site": A,
             "target_site": B}  # fmt: skip
    return Circuit(xr.Dataset(data, {"source": [5, 7], "target": [1, 2, 3]}, attrs))


def race() -> Race:
    places = pd.DataFrame({"mean": [0.9, 0.4], "seeds": [8, 4], "dropped": [NAN, 0.0]},
                          index=pd.Index([A, B], name="site"))  # fmt: skip
    scores = Scores(xr.DataArray(numbers(1, 8), {"site": [A], "seed": range(8)}, ("site", "seed")))
    return Race(places, scores, (Site(A),), 12, 16)


def channels() -> Channels:
    dims = ("measure", "step", "prompt", "seed", "channel")
    made = xr.DataArray(numbers(3, 2, 1, 2, 8), {"measure": ["size", "mean", "energy"]}, dims)
    return Channels({A: made, B: made})


def special_tokens() -> SpecialTokens:
    coords = {"site": [A, B], "kind": ["begin", "words"], "prompt": ["a"], "seed": [0, 1]}
    return SpecialTokens(*(Scores(xr.DataArray(numbers(2, 2, 1, 2), coords, tuple(coords))) for _ in "abc"))


def balance() -> Balance:
    rows = [
        ("cook", name, r, 0.1 * r, share, 0.5)
        for r in (0, 1)
        for name, share in (("woman", 0.2), (EVIL, 0.8))
    ]
    columns = ["concept", "attribute", "round", "amount", "share", "wanted"]
    return Balance(None, pd.DataFrame(rows, columns=columns), done=False)


def groups() -> LatentGroups:
    share = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [1.0, 0.0]])
    data = {
        "share": (("picture", "group"), share),
        "loss": ("picture", numbers(4)),
        "group_loss": ("group", [0.1, 0.3]),
    }
    return LatentGroups(xr.Dataset(data))


def explanation() -> Explanation:
    requests = pd.DataFrame(
        {"met": [0.9, -0.2], "rows": [4, 4]}, index=pd.Index(["a -> b", EVIL], name="request")
    )
    none = pd.DataFrame(columns=["how", "mean", "largest"]).rename_axis("weight")
    return Explanation(requests, none, none)


def study() -> BiasStudy:
    data = {
        "label": (("way", "sample"), [["woman", "man", "man"], ["woman", "woman", "none"]]),
        "kept": (("way", "sample"), numbers(2, 3)),
        "moved": (("way", "sample"), numbers(2, 3)),
        "quality": (("way", "left out"), numbers(2, 4)),
        "rows": ("way", [3, 6]),
    }
    attrs = {"classes": ["woman", "man"], "towards": "woman", "strength": 1.0, "reached": 1, "missing": [],
             "target": {"woman": 0.5, "man": 0.5}}  # fmt: skip
    return BiasStudy(xr.Dataset(data, {"way": ["nothing", EVIL]}, attrs))


def atlas() -> Atlas:
    data = {
        "activity": (("feature", "sample"), numbers(2, 4)),
        "density": ("feature", numbers(2)),
        "top": (("feature", "place"), np.array([[2, 0], [3, 1]])),
        "pictures": (("sample", "row", "column", "channel"), (255 * numbers(4, 5, 5, 3)).astype(np.uint8)),
        "edited": (("feature", "scale", "row", "column", "channel"), np.zeros((2, 3, 5, 5, 3), np.uint8)),
        "profile": (("feature", "step"), numbers(2, 2)),
        "moved": (("feature", "scale"), numbers(2, 3)),
        **{f"tells_{k}": ("line", [v]) for k, v in {"feature": 8, "kind": "word", "name": EVIL, "auc": 0.9,
                                                    "low": 0.8, "high": 1.0, "tried": 3}.items()},
    }  # fmt: skip
    return Atlas(xr.Dataset(data, {"feature": [8, 11]}, {"site": A}))


def changes() -> Changes:
    over = ("change", "prompt", "seed")
    data = {
        name: (over, (numbers(3, 2, 2) > 0.5).astype(float)) for name in ("hit", "fit", "moved", "colour")
    }
    coords = {"change": ["nothing done", "asked outright", EVIL], "seed": [0, 1],
              "kind": ("prompt", ["efficacy", "specificity"]), "text": ("prompt", ["a", "b"])}  # fmt: skip
    data["depth"] = (("change", "asked", "seed"), numbers(3, 1, 2))
    attrs = {"goal": "change_to", "goal_said": "a is b", "rivals": ["a", "b"], "judged": 1}
    return Changes(xr.Dataset(data, coords, attrs), {EVIL: {"analysis": "mediation", "rows": 3}})


SCORE = DirectionScore(0.9, 0.8, 1.0, 0.2, 0.1, 0.3, 0.4, "fit", 8)
STABILITY = Stability(torch.tensor([0.2, 0.9, 0.5]), torch.tensor([0, 1, 1]), 0.1)
RESULTS: dict[str, Any] = {
    type(r).__name__: r
    for r in (bias_features(), steering(), circuit(), race(), channels(), special_tokens(), balance(),
              groups(), explanation(), study(), atlas(), changes(), SCORE, STABILITY)
}  # fmt: skip
every = pytest.mark.parametrize("name", RESULTS)


@every
def test_a_figure_is_returned_and_runs_nothing_of_a_name(name: str) -> None:
    figure = RESULTS[name].plot()
    assert len(figure.data)
    assert EVIL not in figure.to_json()


@every
def test_it_shows_itself(name: str) -> None:
    assert harmless(RESULTS[name]._repr_html_())


def table(name: str) -> pd.DataFrame:
    told = RESULTS[name].plot().layout.meta["table"]
    return pd.DataFrame(told["rows"], columns=told["columns"])


def test_lines_are_the_numbers_of_the_table() -> None:
    shown, known = table("BiasFeatures"), RESULTS["BiasFeatures"].accuracy()
    assert shown[shown["line"] == "told right"]["mean"].tolist() == known["mean"].tolist()
    assert shown[shown["line"] == "shuffled labels"]["mean"].tolist() == known["shuffled"].tolist()
    shown, known = table("Steering"), RESULTS["Steering"].to_frame()
    assert shown["mean"].tolist() == known[known["metric"] == "fit"]["mean"].tolist()
    other = RESULTS["Steering"].plot("moved").layout.meta["table"]["rows"]
    assert [row[2] for row in other] == known[known["metric"] == "moved"]["mean"].tolist()
    assert table("Stability")["mean"].tolist() == pytest.approx([0.9, 0.5, 0.2, 0.1])
    with pytest.raises(LookupError, match="metric 'fits' was not measured; did you mean 'fit'"):
        RESULTS["Steering"].plot("fits")


def test_what_stands_beside_lines_is_one_height_across() -> None:
    figure = RESULTS["Balance"].plot()
    assert [line.y0 for line in figure.layout.shapes] == [0.5]  # both are wanted half of the time
    (told,) = figure.layout.annotations
    assert told.text == f"wanted: cook: woman, wanted: cook: {escape(EVIL)}"
    assert [list(trace.y) for trace in figure.data] == [[0.2, 0.2], [0.8, 0.8]]


def test_bars_are_the_numbers_of_the_table() -> None:
    shown = table("Race").set_index("measure")
    assert shown["mean"].to_dict() == {A: 0.9, B: 0.4} and shown["when"].to_dict() == {
        A: "left",
        B: "dropped",
    }
    assert np.isnan(shown.loc[B, "low"]) and shown.loc[A, "low"] < shown.loc[A, "high"]
    frame, shown = RESULTS["Channels"].to_frame(), table("Channels").set_index(["measure", "when"])["mean"]
    assert shown[A, "largest"] == frame["energy_1"][0] and shown[A, "three"] == frame["energy_3"][0]
    frame, shown = RESULTS["SpecialTokens"].to_frame(), table("SpecialTokens").set_index(["measure", "when"])
    assert shown.loc[("words", "value"), "low"] == frame.loc["words", "value low"]
    assert table("LatentGroups")["measure"].tolist() == [
        "group 1 (30% of pictures)",
        "group 0 (70% of pictures)",
    ]
    assert table("LatentGroups")["mean"].tolist() == [0.3, 0.1]
    assert table("Explanation")["mean"].tolist() == [0.9, -0.2]
    assert table("BiasStudy")["mean"].tolist() == RESULTS["BiasStudy"].shares()["mean"].tolist()
    assert table("DirectionScore").set_index(["measure", "when"])["mean"].to_dict() == {
        ("detects (AUC)", "the direction"): 0.9, ("detects (AUC)", "by chance"): 0.5,
        ("steers (fit)", "the direction"): 0.2, ("steers (fit)", "other prompts"): 0.4,
    }  # fmt: skip
    frame, shown = (
        RESULTS["Changes"].to_frame().set_index("change"),
        table("Changes").set_index(["measure", "when"]),
    )
    assert all(shown.loc[(EVIL, name), "high"] == frame.loc[EVIL, f"{name}_high"] for name in MAIN)


def test_a_circuit_draws_the_edges_that_were_kept() -> None:
    data, shown = RESULTS["Circuit"].data, table("Circuit")
    assert list(zip(shown["source"], shown["target"], strict=True)) == [("5", "1"), ("5", "3"), ("7", "3")]
    assert shown.iloc[1, 2] == float(data["measured"].sel(source=5, target=3))


def test_an_atlas_draws_where_a_feature_is_strongest() -> None:
    found, first = RESULTS["Atlas"], RESULTS["Atlas"].plot()
    told = [a.text for a in found.plot(11).layout.annotations]
    strongest = found.data["activity"].sel(feature=11).values[3]
    assert told[0] == f"sample 3: {strongest:.3g}" and len(told) == 2
    assert first.to_json() == found.plot(8).to_json() != found.plot(11).to_json()
    with pytest.raises(LookupError, match=r"feature 9 is not in this atlas; there are \[8, 11\]"):
        found.plot(9)


def test_a_table_without_a_column_is_refused() -> None:
    frame = pd.DataFrame({"line": ["a"], "mean": [1.0], "low": [0.0], "high": [2.0]})
    with pytest.raises(ValueError, match="no column 'step'; it has line, mean, low, high"):
        plots.interval_lines(frame, "step", "share")


def test_no_result_lacks_a_table_a_figure_or_a_view() -> None:
    """A class that has one of them is a result, and has all; what is inherited counts."""
    made, lacking = dict[str, tuple[set[str], list[str]]](), []
    for folder in ("analysis", "editing", "probes", "denoscope"):
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.parse(file.read_text()).body:
                if isinstance(node, ast.ClassDef):
                    own = {f.name for f in node.body if isinstance(f, ast.FunctionDef)}
                    made[node.name] = own, [b.id for b in node.bases if isinstance(b, ast.Name)]
    for name, (own, bases) in made.items():
        has = own.union(*(made[b][0] for b in bases if b in made))
        wanted = {"to_frame", "plot", "_repr_html_"}
        if own & {"to_frame", "_repr_html_"} and not wanted <= has and name not in VALUES:
            lacking.append(f"{name}: {', '.join(sorted(wanted - has))}")
    assert not lacking
    assert {*RESULTS} <= {*made}
