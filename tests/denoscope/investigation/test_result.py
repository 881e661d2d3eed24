"""An investigation is a value that shows itself; all it holds is in its folder."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from denoscope.investigation import Investigation
from denoscope.models.images import to_array


def test_it_holds_what_the_run_found(finished: Path) -> None:
    found = Investigation(finished)
    assert found.page == finished / "report.html" and Path(found).read_text().startswith("<!doctype html>")
    assert found.edit.note["method"] == "quickfix"
    assert found.text.clean.dims == found.denoiser.clean.dims == ("prompt", "seed")
    assert "window" in found.denoiser.normalised.values.dims
    data = found.evaluation.data
    before = to_array(found.evaluation.images["before"].flatten(0, 1))
    assert np.array_equal(before.values, data["before"].values)  # to the bit of what was kept
    assert len(found.evaluation.to_frame()) == 3 * data.sizes["evaluation_prompt"] * data.sizes["seed"]


def test_it_shows_and_draws_itself(finished: Path) -> None:
    found = Investigation(finished)
    shown = found._repr_html_()
    assert shown.count("<img") == 2 and "report.html" in shown and "No judge says what pictures show" in shown
    assert not re.search(r"<script|(src|href)=\"(?!data:image/png;base64,)", shown)
    assert {a.text for a in found.plot().layout.annotations} == {"before", "after"}
    assert repr(found) == f"Investigation({str(finished / 'report.html')!r})"
