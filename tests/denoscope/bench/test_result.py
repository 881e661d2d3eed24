"""What is kept of a benchmark: tables, files, the page."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import torch

from denoscope.analysis import plots
from denoscope.bench import EditBenchmark
from denoscope.bench.page import falls, write_page
from denoscope.bench.result import CELLS, DISTANCES, MANY, PICTURES, Strip

EVIL = "<script>alert(1)</script>"
ABOUT = {
    "model": "tiny",
    "steps": 2,
    "guidance": 4.0,
    "seeds": [0, 1],
    "judge": {"name": EVIL},
}


def picture(method, concept, aim, seed, before, after, fit=0.5):
    told = (before, fit, after, fit, 1.0, fit, 0.1)
    return (method, concept, "things", aim, f"a {concept} {EVIL}", "a dog", seed, *told)


def benchmark():
    cell = ("uce", "cat", "things", None, 0.2, 256, 0.01, 0.5, *[0.5] * (len(CELLS) - 8))
    refused = ("time", "cat", "things", f"no {EVIL}", 0.1, *[None] * (len(CELLS) - 5))
    shown = [
        picture("uce", c, aim, s, 0.0, float(c == "cat"))
        for c in ("cat", "cook")
        for aim in ("efficacy", "neighbour")
        for s in (0, 1)
    ]
    many = ("uce", 10, "at once", None, 10, 1.0, 0.5, 0.0, 1.0, 1.0, 1.0, 0.75, 1.0, 1.0, 0.1)
    none = ("time", 10, "at once", "it takes 1", 0, *[None] * (len(MANY) - 5))
    pixels = {
        "unedited": torch.zeros(3, 4, 4, dtype=torch.uint8),
        "uce": torch.ones(3, 4, 4, dtype=torch.uint8),
    }
    return EditBenchmark(
        ABOUT,
        pd.DataFrame([cell, refused], columns=list(CELLS)),
        pd.DataFrame(shown, columns=list(PICTURES)),
        pd.DataFrame([many, none], columns=list(MANY)),
        pd.DataFrame([("uce", 8, 3.0, 0.5)], columns=list(DISTANCES)),
        (Strip("cat", f"a {EVIL}", "a dog", pixels),),
    )


class Words(HTMLParser):
    """The text of a page outside scripts, and the tags."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.words, self.inside = [], [], "", ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.inside = tag
        self.links += [v for k, v in attrs if k in ("src", "href") and v]

    def handle_data(self, data):
        if self.inside not in ("script", "style"):
            self.words += data


def test_the_summary_is_of_concepts_and_seeds():
    found = benchmark().summary().set_index(["method", "measure", "state"])
    row = found.loc[("uce", "efficacy", "after")]
    assert row["mean"] == 0.5 and row["concepts"] == 2
    assert 0 <= row["low"] < 0.5 < row["high"] <= 1
    assert found.loc[("uce", "efficacy", "before"), "mean"] == 0
    assert found.loc[("uce", "drift", "after"), "mean"] == pytest.approx(0.1)


def test_json_holds_all_tables_and_is_read_again(tmp_path):
    made = benchmark()
    made.save(tmp_path)
    again = EditBenchmark.load(tmp_path)
    for name in ("cells", "pictures", "many", "distances"):
        first, second = (getattr(b, name).astype(object) for b in (made, again))
        pd.testing.assert_frame_equal(first.where(first.notna(), None), second.where(second.notna(), None))
    assert json.loads(made.to_json())["about"] == ABOUT
    assert again.summary().equals(made.summary())


def test_damage_is_noticed(tmp_path):
    with pytest.raises(FileNotFoundError, match="no results.json"):
        EditBenchmark.load(tmp_path)
    benchmark().save(tmp_path)
    file = tmp_path / "results.json"
    for text in (file.read_text().replace('"tiny"', '"tony"'), "{", "[]", "{}"):
        file.write_text(text)
        with pytest.raises(ValueError, match="is not what was written"):
            EditBenchmark.load(tmp_path)


def test_parquet_holds_the_tables(tmp_path):
    pytest.importorskip("pyarrow")
    made = benchmark()
    files = made.to_parquet(tmp_path)
    assert [f.name for f in files] == ["cells.parquet", "pictures.parquet", "many.parquet"]
    pd.testing.assert_frame_equal(pd.read_parquet(files[1]), made.pictures, check_dtype=False)


def test_without_pyarrow_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("denoscope.bench.result.find_spec", lambda _: None)
    with pytest.raises(RuntimeError, match=r"pip install 'denoscope\[tables\]'"):
        benchmark().to_parquet(tmp_path)
    benchmark().save(tmp_path)  # the rest is written all the same
    assert sorted(f.name for f in tmp_path.iterdir()) == ["results.json"]


def test_the_page_is_whole_and_what_is_said_in_it_is_escaped(tmp_path):
    page = Words(write_page(benchmark(), tmp_path).read_text())
    assert all(link.startswith(("#", "data:")) for link in page.links)
    assert page.tags.count("script") == 3  # numbers, plotly, ours
    assert page.words.count(EVIL) >= 3  # prompt, reason, judge
    for said in ("Edits compared on “tiny”", "asked outright", "it takes 1", "2 methods", "75%"):
        assert said in page.words, said
    assert page.tags.count("img") == 2


def test_the_page_tells_the_numbers(tmp_path):
    text = write_page(benchmark(), tmp_path).read_text()
    row = re.search(r"<td>uce</td><td>1 of 1</td>(.*?)</tr>", re.sub(r"\n\s*", "", text), re.S)[1]
    cells = [re.sub(r"<[^>]+>", " ", c).strip() for c in row.split("</td>")]
    assert cells[0].startswith("50%") and "to" in cells[0]
    assert "256" in cells and "1.00%" in cells and "0.2" in cells


def test_a_benchmark_without_numbers_has_a_page_too(tmp_path):
    made = benchmark()
    empty = EditBenchmark(ABOUT, made.cells[1:], made.pictures[:0], made.many[:0], made.distances[:0])
    words = Words(write_page(empty, tmp_path).read_text()).words
    assert "No method took any request" in words and "too few concepts" in words
    assert "A benchmark that was loaded has no pictures" in words and "What is edited" not in words


def test_how_far_specificity_falls():
    (row,) = falls(benchmark().many).itertuples(index=False)
    assert (row.method, row.edits, row.fall) == ("uce", 10, 0.25)


def test_the_figure_has_a_point_for_each_method_and_for_the_unedited_model():
    made = benchmark().summary()
    figure = plots.trade_off(made, up="neighbours")
    assert [t.name for t in figure.data] == ["uce", "unedited", "asked outright"]
    assert figure.data[0].x == (0.5,) and figure.data[0].error_x.array[0] > 0
    assert np.isclose(figure.data[0].x[0] + figure.data[0].error_x.array[0], made.query(
        "measure == 'efficacy' and state == 'after'")["high"].iloc[0])  # fmt: skip
    assert benchmark().plot().layout.meta["table"]["rows"][0][0] == "uce"
    with pytest.raises(ValueError, match="no measure 'speed'; it has efficacy"):
        plots.trade_off(made, across="speed")


def test_it_shows_itself():
    assert repr(benchmark()) == "EditBenchmark(tiny: 2 methods x 1 concepts, 1 of 2 edits made)"
    assert "<table" in benchmark()._repr_html_()
