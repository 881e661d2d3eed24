"""Explanations: equal to the methods that they are made of, laws, what cannot be explained."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

import denoscope
from denoscope.analysis import mutual_information, pid, word_maps
from denoscope.analysis.information.each_word import NOISY, noisy, word_information
from denoscope.analysis.information.words import Word, chosen_words, content_words
from denoscope.explanation import Explanation
from denoscope.explanation.kinds import DEFAULT_MAP, KINDS
from denoscope.explanation.own_picture import own_picture
from denoscope.models.errors import NotFoundError, UsageError
from denoscope.models.load import load
from denoscope.models.synthetic.analytic import Analytic, two_by_two
from denoscope.models.synthetic.tiny import tiny_ddpm
from denoscope.models.synthetic.tiny_families import tiny_dit, tiny_sd3
from denoscope.probes.denoising_errors import error_bank

PROMPT = "a red cat"


@pytest.fixture(scope="module")
def run(tiny):
    return denoscope.trace(tiny, [PROMPT], seeds=[0], steps=2)


def test_numbers_are_those_of_the_methods_one_by_one(tiny, run, found):
    for word, rest in (("red", "a cat"), ("cat", "a red")):
        alone = mutual_information(tiny, run, PROMPT, given=rest, levels=8)
        own = found.data.sel(word=word)
        assert float(own["nats"]) == pytest.approx(float(alone.nats[0]), abs=1e-5)
        assert float(own["stderr"]) == pytest.approx(float(alone.stderr[0]), abs=1e-5)
    apart = pid(tiny, run, PROMPT, ["red", "cat"], given_rest=True, levels=8)
    assert found.data["pair_nats"].values == pytest.approx(apart.nats.values[0], abs=1e-5)
    assert found.data["pair_stderr"].values == pytest.approx(apart.stderr.values[0], abs=1e-5)


def test_maps_are_those_of_the_methods_and_the_picture_is_that_of_a_plain_run(tiny, run, found):
    read = word_maps(tiny, [PROMPT], ["red", "cat"], seeds=[0], steps=2, time="each")
    assert np.array_equal(found.data["attention"].values, read.maps.values[:, 0])
    mean = found.data["maps"].sel(kind="attention").values
    assert mean == pytest.approx(read.maps.values[:, 0].mean(0))
    assert torch.allclose(found.image, run.images[0], atol=0.5 / 255 + 1e-6)
    assert found.data["maps"].shape == (len(KINDS), 2, 8, 8) and not found.data["maps"].isnull().any()
    assert float(found.data["maps"].sel(kind="gradient").min()) >= 0


def test_what_both_tell_less_what_one_tells_is_what_the_other_adds(found):
    """The chain rule of the standard estimate, to rounding: of the picture, and of maps in each cell."""
    data, pair = found.data, found.data.isel(pair=0)
    for word, other in (("red", "information 2"), ("cat", "information 1")):
        for whole, of in (
            (data["nats"], pair["pair_nats"]),
            (data["maps"].sel(kind="information"), pair["pair_map"]),
        ):
            adds = of.sel(part="total") - of.sel(part=other)
            assert adds.values == pytest.approx(whole.sel(word=word).values, abs=1e-5)


def test_maps_are_of_the_noisy_levels_alone(tiny, run):
    bank = error_bank(tiny, run, {"a": PROMPT, "b": "a cat"}, pairs=[("a", "b")], levels=8)
    few = noisy(bank)
    assert 0 < len(few.log_snr) < 8 and max(few.log_snr) <= NOISY < bank.log_snr[len(few.log_snr)]
    rest = error_bank(tiny, run, {"a": PROMPT, "b": "a cat"}, pairs=[("a", "b")], levels=8)
    kept = (rest.maps[:, : len(few.log_snr), 0, 0] * few.weights("v")[:, None, None]).sum(1)
    assert few.map("a", "b", "standard", "v").numpy() == pytest.approx(kept.numpy(), abs=1e-9)
    assert len(noisy(bank, -99.0).log_snr) == 1


def test_planted_truth_is_found():
    """Shape moves the first coordinate, colour the second: each word tells log 2, in its own cell."""
    model, point = Analytic(two_by_two(2.0, 0.2)), torch.tensor([[-1.0, -1.0]])
    words = [Word("circle", "circle", 0, 6), Word("red", "red", 7, 10)]
    how = {"log_snr": (-8, 6), "levels": 24, "draws": 20, "batch": 8192}
    told = word_information(model, point, "circle red", words, **how)
    for i, one in enumerate(("circle", "red")):
        own = told.sel(word=one).isel(image=0)
        assert float(own["nats"]) == pytest.approx(np.log(2), abs=max(0.01, 3 * float(own["stderr"])))
        assert int(own["map"].argmax("x").item()) == i


def test_articles_and_prepositions_are_left_out_and_repeated_words_numbered(tiny):
    assert content_words("A cook, with the red hat of a cook") == ["cook:1", "red", "hat", "cook:2"]
    twice = denoscope.explain(tiny, "a cat and a dog and a cat", steps=1, levels=4, words=["cat:2", "dog"])
    assert twice.pairs == ["dog + cat:2"] and twice.data["begins"].values.tolist() == [12, 22]
    assert [w.name for w in chosen_words(PROMPT, ["red cat"], least=1)] == ["red cat"]


def test_one_word_has_no_pairs_and_says_so(tmp_path):
    model = load(tiny_sd3())  # joint attention: a concept alone needs a rival
    one = denoscope.explain(model, "a cat", steps=1, levels=4)
    assert one.pairs == [] and one.pairs_to_frame().empty and "0 pairs" in repr(one)
    with pytest.raises(UsageError, match="no pairs; name two"):
        one.plot_pairs()
    text = one.page(tmp_path / "one.html").read_text()
    assert "Only one word was explained" in text and "data-pair=" not in text


def test_a_picture_of_ones_own_is_looked_at_at_noise_levels(tiny, tmp_path):
    height, width = tiny.size
    pixels = np.zeros((2 * height, 2 * width, 4), np.uint8)
    pixels[:, width:] = 255
    Image.fromarray(pixels).save(tmp_path / "own.png")
    taken = own_picture(tiny, tmp_path / "own.png")
    assert taken.shape == (1, 3, height, width) and bool((taken == 1).all())  # clear is white
    own = denoscope.explain(tiny, PROMPT, image=str(tmp_path / "own.png"), words=["red", "cat"], levels=4)
    assert own.data.sizes["step"] == 8 and own.data["sigma"].values[0] > own.data["sigma"].values[-1]
    same = denoscope.explain(tiny, PROMPT, image=taken[0], words=["red", "cat"], levels=4)
    assert np.array_equal(own.data["maps"].values, same.data["maps"].values)
    assert "own picture" in own.page(tmp_path / "own.html").read_text()


def test_an_explanation_is_kept_and_shows_itself(found, tmp_path):
    found.save(tmp_path / "found.zarr")
    again = Explanation.load(tmp_path / "found.zarr")
    assert again.data.equals(found.data) and again.prompt == PROMPT
    assert again.page(tmp_path / "a.html").read_text() == found.page(tmp_path / "b.html").read_text()
    frame = found.to_frame()
    assert list(frame.columns) == ["word", "nats", "low", "high", "y", "x"]
    assert ((frame["high"] - frame["nats"]) / 1.96).values == pytest.approx(found.data["stderr"].values)
    assert found._repr_html_().count("<img") == 2 and "red" in repr(found)


def test_words_are_ranked_at_a_place(found):
    maps = found.data["maps"].sel(kind=DEFAULT_MAP)
    here = found.at(3, 5)
    assert here["value"].tolist() == sorted(maps.isel(y=3, x=5).values.tolist(), reverse=True)
    with pytest.raises(UsageError, match="8 rows and 8 columns"):
        found.at(8, 0)
    with pytest.raises(NotFoundError, match="did you mean 'gradient'"):
        found.at(0, 0, "gradients")


def test_figures_hold_the_numbers_and_are_returned(found):
    panels = found.plot("gradient")
    own = found.data["maps"].sel(kind="gradient")
    assert np.allclose(panels.data[1].z, own.values[0]) and panels.data[1].zmin == float(own[0].min())
    signed = found.plot().data[1]
    assert signed.zmin == -signed.zmax
    matrix = found.plot_pairs()
    parts = found.data["pair_nats"].isel(pair=0)
    assert matrix.data[0].z[1][0] == float(parts.sel(part="redundancy"))
    assert matrix.data[0].z[0][1] == float(parts.sel(part="synergy"))
    assert len(found.plot_pairs("red + cat").data) == 8
    for still in (found.plot(static=True), found.plot_pairs(static=True)):
        assert isinstance(still, Figure) and still._repr_png_().startswith(b"\x89PNG")
    with pytest.raises(NotFoundError, match=r"no pair 'cat \+ red'; known: red \+ cat"):
        found.plot_pairs("cat + red")


WRONG = [
    ({"prompt": 3}, TypeError, "prompt is 3"),
    ({"seed": "0"}, TypeError, "seed is '0'"),
    ({"levels": 0}, UsageError, "levels is 0"),
    ({"batch": 0}, UsageError, "batch is 0"),
    ({"words": ["cart"]}, NotFoundError, "'cart' is not in the prompt 'a red cat'; did you mean 'cat'"),
    ({"words": ["cat", "cat"]}, UsageError, "named twice"),
    ({"words": []}, UsageError, "is no word; name one"),
    ({"prompt": "a cat and a cat", "words": ["cat"]}, UsageError, "name one: 'cat:1' or 'cat:2'"),
    ({"prompt": "of the"}, UsageError, "no words to explain"),
    ({"image": "nowhere.png"}, FileNotFoundError, "there is no picture 'nowhere.png'"),
    ({"image": __file__}, UsageError, "is no picture that can be read"),
    ({"image": torch.zeros(3, 5, 5)}, UsageError, "images are 5 by 5 pixels"),
    ({"image": torch.zeros(2, 3, 16, 16)}, UsageError, "holds 2 pictures"),
    ({"image": torch.zeros(3, 16, 16), "steps": 4}, UsageError, "steps are of a run"),
]


@pytest.mark.parametrize(("given", "error", "message"), WRONG, ids=lambda v: str(v)[:24])
def test_what_cannot_be_explained_is_told(tiny, given, error, message):
    with pytest.raises(error, match=message):
        denoscope.explain(tiny, **{"prompt": PROMPT, "levels": 4, **given})


def test_a_picture_of_other_proportions_is_not_squeezed(tiny, tmp_path):
    Image.new("RGB", (30, 20)).save(tmp_path / "wide.png")
    with pytest.raises(UsageError, match="is 30 x 20 pixels .* paints 16 x 16; crop it"):
        denoscope.explain(tiny, PROMPT, image=tmp_path / "wide.png")


@pytest.mark.parametrize(("make", "error"), [(tiny_ddpm, "reads no text"), (tiny_dit, "reads no words")])
def test_models_that_read_no_words_are_refused(make, error):
    with pytest.raises((UsageError, NotFoundError), match=error):
        denoscope.explain(load(make()), PROMPT)
