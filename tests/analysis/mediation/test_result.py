"""Effects of made up scores: each restored run is compared with the corrupted run of its own draw."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

from denoscope.analysis import Mediation

SITES = ["text_encoder/layer.0/mlp.out", "text_encoder/layer.1/mlp.out"]


def made(restored: Any = None, **attrs: Any) -> Mediation:
    """Scores of two sites, one token, two prompts, two seeds, three draws."""
    draws = np.random.default_rng(0)
    data = {
        "clean": (("prompt", "seed"), 2 + draws.random((2, 2))),
        "corrupted": (("prompt", "seed", "draw"), draws.random((2, 2, 3))),
        "restored": (
            ("site", "token", "prompt", "seed", "draw"),
            draws.random((2, 1, 2, 2, 3)) if restored is None else restored,
        ),
    }
    coords = {"site": SITES, "token": ["3:cat"], "prompt": ["a", "b"], "seed": [4, 9], "draw": range(3)}
    about = {"metric": "height", "corruption": "Noise", "rows": 12, "reference_rows": 40, **attrs}
    return Mediation(xr.Dataset(data, coords, about))


def test_effects_are_of_the_same_prompt_seed_and_draw() -> None:
    found = made()
    restored, corrupted = found.data["restored"].values, found.data["corrupted"].values
    effect = found.indirect_effect.values
    assert effect.dims == ("site", "token", "prompt", "seed", "draw")
    np.testing.assert_allclose(effect.values, restored - corrupted)
    assert effect.attrs == found.restored.values.attrs == found.data.attrs
    np.testing.assert_array_equal(found.restored.values.values, restored)


def test_causal_places_are_those_above_the_middle() -> None:
    found = made()
    clean, corrupted = found.clean, found.corrupted
    shares = xr.DataArray([[0.55], [0.45]], dims=("site", "token"))
    whole = (corrupted + shares * (clean - corrupted)).transpose("site", "token", "prompt", "seed", "draw")
    found = made(whole.values)
    assert found.causal()["site"].tolist() == SITES[:1]
    assert found.causal(above=0.4)["mean"].tolist() == pytest.approx([0.55, 0.45])
    assert found.causal(above=0.6).empty


def test_a_narrower_level_gives_a_narrower_interval() -> None:
    found = made()
    wide, narrow = found.total(), found.total(level=0.5)
    assert float(wide["low"]) < float(narrow["low"]) < float(narrow["high"]) < float(wide["high"])
    assert float(wide["mean"]) == pytest.approx(float((found.clean - found.corrupted).mean()))


def test_it_tells_what_it_is() -> None:
    found = made()
    clean, corrupted = (float(found.data[k].mean()) for k in ("clean", "corrupted"))
    assert repr(found) == (
        f"Mediation(height: clean {clean:.3g}, corrupted {corrupted:.3g}; "
        "2 sites, 1 tokens, 2 prompts, 2 seeds, 3 draws)"
    )
    assert (found.rows, found.reference_rows) == (12, 40)


def test_a_whole_of_nothing_has_no_shares() -> None:
    found = made()
    same = found.data.assign(clean=found.data["corrupted"].mean("draw"))
    with pytest.raises(ValueError, match="Noise left the mean of height as it was"):
        Mediation(same.assign(clean=0 * same["clean"], corrupted=0 * same["corrupted"])).normalised.mean()
