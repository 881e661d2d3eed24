"""What an edit says of itself agrees with its own equations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

import denoscope
from denoscope import Edit
from denoscope.editing import crosstalk, explain, locoedit, nullspace, quickfix, time, uce
from denoscope.editing.methods.nullspace import SPEED
from denoscope.editing.methods.uce import OURS
from denoscope.models.synthetic.tiny import tiny_sd

FEW = replace(OURS, templates=("a {}",), tokens="subject", ridge=1e-9)


@pytest.fixture(scope="module")
def model() -> Any:
    return denoscope.load(tiny_sd())


def test_requests_that_can_be_met_are_met(model: Any) -> None:
    edit = uce(model, {"cat": "dog", "red": ""}, debias={"hat": {"cat": 0.3}}, keep=(), settings=FEW)
    said = explain(edit, model)
    assert list(said.requests.index) == ["cat -> dog", "red -> ", "hat +0.3 cat"]
    assert (said.requests["met"] > 0.999).all() and (said.requests["rows"] == 1).all()
    assert said.kept.empty and (said.layers["rank"] <= 3).all() and len(said.layers) == 8
    half = explain(0.5 * edit, model).requests["met"]
    assert half.round(3).tolist() == [0.5, 0.5, 0.5]
    undone = explain(-edit, model).requests["met"]
    assert undone.round(3).tolist() == [-1.0, -1.0, -1.0]


def test_what_is_kept_is_told_and_trades_with_what_is_asked(model: Any) -> None:
    def one(weight: float) -> Any:
        how = replace(FEW, kept_weight=weight, ridge=1e-3)
        return explain(uce(model, {"cat": "dog"}, keep=["a dog"], settings=how), model)

    loose, tight = one(1e-3), one(1e3)
    assert tight.kept["largest"].max() < loose.kept["largest"].max()
    assert tight.requests["met"].min() < loose.requests["met"].min()
    assert tight.layers["condition"].min() > loose.layers["condition"].min() > 1
    held = explain(nullspace(model, {"cat": "dog"}, hold=["a mat"], settings=SPEED), model)
    assert (held.kept["how"] == "held").all() and held.kept["largest"].max() < 1e-12
    assert "is met to" in repr(held) and "cat -&gt; dog" in held._repr_html_()


def test_every_method_is_explained(model: Any) -> None:
    site = "unet/mid.attn.0.0/cross_attn.out"
    edits = [
        quickfix(model, {"cat": "dog"}, ridge=1e-6, keep=(), templates=["a {}"], tokens="subject"),
        time(model, {"cat": "red cat"}, keep=(), settings=replace(OURS, templates=("{}",), ridge=1e-6)),
        locoedit(model, {"cat": "dog"}, weights=site, settings="paper"),
    ]
    met = [float(explain(edit, model).requests["met"].iloc[0]) for edit in edits]
    assert met[0] > 0.999 and met[1] > 0.5 and met[2] > 0.5
    assert len(explain(edits[2], model).layers) == 2


def test_edits_that_cannot_be_explained(model: Any) -> None:
    edit = uce(model, {"cat": "dog"}, settings=FEW)
    with pytest.raises(ValueError, match="method 'sum' are not known; explain one of quickfix, locoedit"):
        explain(edit + edit, model)
    name = next(iter(edit.deltas))
    with pytest.raises(ValueError, match="method 'by hand' are not known"):
        explain(Edit.of(model, {name: torch.ones_like(model.parameter(name))}), model)
    with edit.applied(model), pytest.raises(ValueError, match="carries Edit.*revert it first"):
        explain(edit, model)


def test_crosstalk_of_equal_edits_doubles_them(model: Any) -> None:
    """The last tokens that are held do not move; the padding behind them does, so all of it is above zero."""
    edits = {
        said: nullspace(
            model, {said: "red dog"}, hold=[other], settings=replace(SPEED, projections="kv", ridge=1e-6)
        )
        for said, other in (("cat", "mat"), ("mat", "cat"))
    }
    found = crosstalk(model, edits)
    assert found.moved.dims == ("edit", "text") and found.moved.text.values.tolist() == ["cat", "mat"]
    alone = found.moved.values
    assert (alone > 0).all()  # padding moves
    together = crosstalk(model, {"cat": edits["cat"], "same": edits["cat"]}, {"cat": "cat", "same": "cat"})
    assert torch.allclose(torch.tensor(together.moved.values), torch.tensor(alone[0, 0]), atol=1e-6)
    assert together.spoilt.values.round(4).tolist() == [1.0, 1.0]  # twice as far as the own edit alone


def test_crosstalk_counts_edits_of_the_text_encoder(model: Any) -> None:
    edits = {word: quickfix(model, {word: "dog"}) for word in ("cat", "mat")}
    found = crosstalk(model, edits, {"cat": "a cat", "mat": "a mat"})
    assert (found.moved.values.diagonal() > 0).all() and (found.spoilt.values > 0).all()
    with pytest.raises(ValueError, match="give at least two edits, and a text for each"):
        crosstalk(model, edits, {"cat": "a cat"})


def test_crosstalk_says_what_it_does_not_see(model: Any) -> None:
    seen = uce(model, {"cat": "dog"}, settings=FEW)
    name = next(str(n) for n in model.components["unet"].state_dict() if n.endswith("attn1.to_v.weight"))
    other = Edit.of(model, {f"unet.{name}": torch.ones_like(model.parameter(f"unet.{name}"))})
    found = crosstalk(model, {"cat": seen, "both": seen + other}, {"cat": "cat", "both": "mat"})
    assert found.unseen.values.tolist() == [0, 1]
    assert found.moved.values[0].tolist() == found.moved.values[1].tolist()
    with pytest.raises(ValueError, match=rf"edit 'mat' changes unet.{name}, and nothing that reads the text"):
        crosstalk(model, {"cat": seen, "mat": other})
