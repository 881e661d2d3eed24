"""Features of a class: a planted one is found, pushes do what they say, and what they cost is measured.

At the middle block of a random model a vector is added to every second sample, at steps 2 and 3 of 4. Nothing
else differs between the classes, so the truth is known.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch.nn.functional import normalize

from denoscope import Intervention, Site, When, load, trace
from denoscope.analysis import (
    BiasFeatures,
    FeatureScores,
    Mitigation,
    bias_features,
    calibrated_strength,
    compare_mitigations,
    score_features,
)
from denoscope.analysis.features.painting import Samples
from denoscope.analysis.metrics import latent_distance
from denoscope.guidance import Guidance, GuidanceBranch
from denoscope.models.run.sampling import Sampling
from denoscope.models.synthetic.tiny import tiny_ddim
from denoscope.probes import Learning, train_dictionary
from tests.dictionaries import Eyes

SITE, TEXTUAL = "unet/mid.res.1/resid.post", "unet/mid.attn.0.0/cross_attn.out"
N, STEPS, WINDOW = 48, 4, (2, 3)
V = normalize(torch.randn(16, generator=torch.Generator().manual_seed(5)), dim=0)
RUN = {"seeds": range(N), "steps": STEPS, "batch": N}


@dataclass(frozen=True)
class Planted(Guidance):
    """Adds the vector to every second sample of a batch."""

    size: float = 3.0

    def branches(self, model):
        def plant(x, context):
            on = torch.tensor([s % 2 for s in context.samples])
            return x + self.size * on[:, None, None, None] * V[:, None, None]

        return (GuidanceBranch("cond", interventions=(Intervention(SITE, plant, When(WINDOW)),)),)

    def combine(self, outputs, context, memory):
        return outputs["cond"]


def truth(images):
    """The class of each of all samples, in their order."""
    return [("off", "on")[i % 2] for i in range(len(images))]


def shade(images):
    """What a picture shows, by how bright it is."""
    return ["light" if m > 0.5 else "dark" for m in images.mean((1, 2, 3))]


@pytest.fixture(scope="module")
def model():
    return load(tiny_ddim())


@pytest.fixture(scope="module")
def dictionary(model):
    how = Learning(updates=300, rows=128)
    return train_dictionary(model, SITE, features=48, k=2, learning=how, guidance=Planted(), **RUN)


@pytest.fixture(scope="module")
def found(model, dictionary):
    return bias_features(model, dictionary, ["on", "off"], label=truth, guidance=Planted(), **RUN)


def test_a_planted_feature_and_its_window_are_found(found, dictionary):
    best = found.top("on", 1)
    assert float(normalize(dictionary.decoder[best], dim=-1) @ V) >= 0.8
    assert found.top("on", 1, "contrast")[0] in found.top("on", 3)
    accuracy = found.accuracy()
    inside = accuracy["step"].isin(WINDOW)
    assert (accuracy["mean"][inside] > 0.95).all() and (accuracy["mean"][~inside] < 0.8).all()
    assert (accuracy["shuffled"] < 0.8).all()
    score = found.data["score"].sel({"class": "on", "feature": best[0]})
    assert float(score.sel(step=list(WINDOW)).min()) > 10 * float(abs(score.sel(step=[0, 1])).max())
    frame = found.to_frame()
    assert frame.iloc[0]["feature"] == best[0] and frame.iloc[0]["auc"] > 0.95


def test_taking_out_what_was_found_leads_back_towards_the_run_without_the_vector(model, found, dictionary):
    few = {"seeds": range(8), "steps": STEPS}
    without = trace(model, **few).latents
    own, control = (
        dictionary.edit(found.top("on", 2, by), scale=0.0, steps=WINDOW) for by in ("attribution", "matched")
    )
    mean = found.mean_difference("off", steps=WINDOW).on(*range(1, 8, 2))
    left = []
    for acting in ((), (own,), (control,), (mean,)):
        made = trace(model, **few, guidance=Planted(), interventions=acting).latents
        left.append(float((made - without)[1::2].square().mean()))
    assert left[1] < 0.75 * left[0] and left[2] > 0.8 * left[0] and left[3] < 0.1 * left[0]


def test_no_strength_is_no_change_to_the_bit(model, found, dictionary):
    few = {"seeds": range(4), "steps": STEPS}
    plain = trace(model, **few).latents
    for how in ("scale", "add"):
        nothing = found.towards(dictionary, "on", 0.0, how=how)
        assert torch.equal(trace(model, **few, interventions=[nothing]).latents, plain)
    nothing = found.mean_difference("on", 0.0)
    assert torch.equal(trace(model, **few, interventions=[nothing]).latents, plain)


def test_a_push_is_the_edit_that_it_says(found, dictionary):
    own, other = found.top("on", 2), found.top("off", 2)
    assert not set(own) & set(other)
    level = found.data["level"].values
    for how, by in {
        "scale": dict.fromkeys(own, 1.5) | dict.fromkeys(other, 0.5),
        "add": {f: 0.5 * level[f] for f in own},
        "set": {f: 0.5 * level[f] for f in own} | dict.fromkeys(other, 0.0),
    }.items():
        edit = found.towards(dictionary, "on", 0.5, features=2, how=how, steps=[1], branch=None)
        said = dict(zip(edit.fn.features, edit.fn.by, strict=True))
        assert edit.fn.how == how and edit.when == When([1], None)
        assert said == pytest.approx(by)
    matched = found.top("on", 5, "matched")
    assert not set(matched) & {*found.top("on", 5), *found.top("off", 5)}


def test_pairs_that_do_not_differ_owe_nothing_to_any_feature(tiny):
    prompts = ["a cat", "a dog", "a red cat"]
    how = {"seeds": [0, 1, 2], "steps": 2}
    d = train_dictionary(tiny, TEXTUAL, prompts, k=2, learning=Learning(updates=5, rows=32), **how)
    same = bias_features(tiny, d, {"a": prompts, "b": prompts}, **how)
    assert float(abs(same.data["score"]).max()) == 0 and not same.top("a")
    other = bias_features(tiny, d, {"a": prompts, "b": ["a cook", "a mat", "a blue cat"]}, **how)
    assert float(abs(other.data["score"]).max()) > 0
    assert other.data.sizes["sample"] == 6 and other.data.attrs["baseline"] == "pair"
    # what speaks for a class because it has less of it is pushed towards the other
    for i, name in enumerate(other.classes):
        features = other.top(name)
        assert features and (other.data["contrast"].values[i, features] > 0).all()


def test_features_are_scored_twice(model, found, dictionary):
    few = {"seeds": range(100, 104), "steps": 2}
    scores = score_features(model, dictionary, found, "on", metric=latent_distance(), features=2, **few)
    frame = scores.to_frame(n_resamples=50)
    assert frame["feature"].tolist() == [*found.top("on", 2), *found.top("on", 2, "matched")]
    assert frame["chosen"].tolist() == [True, True, False, False]
    assert frame["tells"][0] == pytest.approx(found.aucs("on")[frame["feature"][0]])
    assert list(scores.plot().data[0].x) == frame["moves"].tolist() and "tells" in scores._repr_html_()
    plain = trace(model, **few).latents
    best = int(frame["feature"][0])
    ends = [
        trace(model, **few, interventions=[dictionary.edit(best, scale=scale)]).latents
        for scale in (0.0, 2.0)
    ]
    moved = [(x - plain).square().flatten(1).mean(1).sqrt() for x in ends]
    assert frame["moves"][0] == pytest.approx(float((moved[1] - moved[0]).mean()), rel=1e-3, abs=1e-6)


def test_ways_are_compared_on_the_same_samples(model, found, dictionary, tmp_path):
    seeds = range(6)
    push = found.towards(dictionary, "on", 4.0, how="add")
    made = compare_mitigations(
        model, {"push": [(push,), ()] * 3, "nothing": [[]] * 6}, seeds=seeds, steps=STEPS, label=shade,
        target={"light": 0.5, "dark": 0.5}, judge=Eyes(),
    )  # fmt: skip
    frame = made.to_frame(n_resamples=50).set_index("way")
    assert frame.index.tolist() == ["plain", "push", "nothing"]
    assert frame.loc["plain", ["discrepancy", "quality", "moved"]].equals(
        frame.loc["nothing", ["discrepancy", "quality", "moved"]]
    )
    assert frame.loc["nothing", "kept"] == pytest.approx(1) and frame.loc["nothing", "moved"] == 0
    assert frame.loc["push", "moved"] > 0 and frame["rows"].tolist() == [4, 4, 4]
    assert (made.data["moved"].sel(way="push").values[1::2] < 1e-4).all()
    assert set(made.shares()["class"]) == {"light", "dark"}
    made.save(tmp_path / "made.zarr")
    assert (
        Mitigation.load(tmp_path / "made.zarr").to_frame(n_resamples=50).equals(made.to_frame(n_resamples=50))
    )
    assert "push" in repr(made) and "push" in made._repr_html_()
    drawn = made.plot().layout.meta["table"]["rows"]
    assert [tuple(r[:2]) for r in drawn] == [
        (w, c) for w in ("plain", "push", "nothing") for c in ("light", "dark")
    ]


def test_another_start_is_a_way(model):
    seeds, grey = range(6), torch.full((6, 3, *model.size), 0.5)
    plain, later = model.start(seeds, Sampling(steps=STEPS)), model.start_at(grey, 1, seeds, steps=STEPS)
    made = compare_mitigations(
        model, {"its own": plain, "grey": later}, seeds=seeds, steps=STEPS, label=shade, batch=4,
        target={"light": 0.5, "dark": 0.5}, judge=Eyes(),
    ).data  # fmt: skip
    assert made["rows"].values.tolist() == [4, 4, 3]
    again = Samples.of(model, None, seeds, 4, {"steps": STEPS}).painted("grey", later)
    assert not again.latents.requires_grad  # a graph of a whole run fills the memory
    assert (made["moved"].sel(way="its own") < 1e-6).all()
    whole = [s.latents for s in model.sample([""] * 6, seeds=seeds, steps=STEPS)][-1]
    *_, last = model.sample([""] * 6, seeds=seeds, start=later, steps=STEPS)
    moved = (last.latents - whole).square().flatten(1).mean(1).sqrt().detach()
    assert made["moved"].sel(way="grey").values == pytest.approx(moved.numpy(), abs=1e-5)


def test_a_strength_is_calibrated_to_a_share(model):
    def push(strength):
        brighter = Intervention("unet/out/eps", lambda x, _: x - strength)
        return [(brighter,)] * 16

    got = calibrated_strength(
        model, push, shade, ("light", 0.75), seeds=range(16), steps=1, most=8.0, rounds=4
    )
    assert got.share == pytest.approx(0.75, abs=1 / 8) and 0 < got.strength < 8
    assert got.tried["strength"].tolist()[:3] == [0.0, 8.0, 4.0]
    with pytest.raises(ValueError, match="0.999 does not lie between"):
        calibrated_strength(
            model, lambda s: push(s)[:4], shade, ("light", 0.999), seeds=range(4), steps=1, most=1e-3
        )


def test_results_are_kept(found, tmp_path):
    found.save(tmp_path / "found.zarr")
    again = BiasFeatures.load(tmp_path / "found.zarr")
    assert again.top("off", 4) == found.top("off", 4) and repr(again) == repr(found)
    with pytest.raises(ValueError, match="FeatureScores"):
        FeatureScores.load(tmp_path / "found.zarr")


def test_a_dictionary_of_something_else_is_refused(model, tiny, dictionary, found):
    ask = {"label": truth, "seeds": range(4), "steps": 2}
    with pytest.raises(RuntimeError, match="trained on other weights"):
        bias_features(tiny, dictionary, ["on", "off"], **ask)
    elsewhere = replace(
        dictionary, channels=replace(dictionary.channels, site=Site("unet/mid.res.7/resid.post"))
    )
    with pytest.raises(LookupError, match="mid.res.7"):
        bias_features(model, elsewhere, ["on", "off"], **ask)
    narrow = replace(
        dictionary,
        **{n: getattr(dictionary, n)[:, :8] for n in ("encoder", "decoder", "input_bias", "output_bias")},
    )
    with pytest.raises(ValueError, match="reads 8 channels"):
        bias_features(model, narrow, ["on", "off"], **ask)
    for use in (lambda d: found.towards(d, "on"), found.check):
        with pytest.raises(ValueError, match="is not the dictionary whose features were asked"):
            use(narrow)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"label": lambda x: ["on"] * len(x)}, "'off' cannot be told from the others; give more seeds"),
        ({"classes": ["on"]}, "give two or more"),
        ({"label": None}, "label is None"),
        ({"classes": {"on": ["a"] * 4, "off": ["b"] * 4}}, "leave out label and prompts"),
        ({"classes": {"on": [], "off": ["b"]}, "label": None}, "class 'on' has 0 prompts for 4 seeds"),
        ({"when": When([5])}, "reach past the run"),
        ({"when": When(branch=None)}, "one guidance branch"),
    ],
)
def test_a_question_without_an_answer_is_refused(model, dictionary, how, message):
    asked = {"classes": ["on", "off"], "label": truth, "seeds": range(4), "steps": 2} | how
    with pytest.raises(ValueError, match=message):
        bias_features(model, dictionary, **asked)


def test_what_cannot_be_pushed_is_refused(model, found, dictionary):
    for wrong in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="strength is"):
            found.towards(dictionary, "on", wrong)
    with pytest.raises(LookupError, match="no attribute 'one'; did you mean 'on'"):
        found.towards(dictionary, "one")
    with pytest.raises(ValueError, match="how is 'turn'"):
        found.towards(dictionary, "on", how="turn")
    with pytest.raises(ValueError, match="features 0"):
        found.top("on", 0)
    with pytest.raises(ValueError, match="has features 0 to 47; .48. are not among them"):
        dictionary.edit(48, scale=0.0)
    with pytest.raises(ValueError, match="steps .* were looked at"):
        found.mean_difference("on", steps=[9])
    with pytest.raises(ValueError, match="reach past the run"):
        trace(model, seeds=[0], steps=2, interventions=[found.towards(dictionary, "on", steps=[3])])
    ask = {
        "seeds": range(3),
        "label": shade,
        "target": {"light": 0.5, "dark": 0.5},
        "judge": Eyes(),
        "steps": 1,
    }
    for ways, message in (
        ({"plain": [()] * 3}, "none called 'plain'"),
        ({"short": [()]}, "give for each of 3 samples"),
        ({"early": model.start(range(2), Sampling(steps=1))}, "'early' starts 2 samples; there are 3"),
    ):
        with pytest.raises(ValueError, match=message):
            compare_mitigations(model, ways, **ask)
