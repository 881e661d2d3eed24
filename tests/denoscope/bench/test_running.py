"""The benchmark: laws of its numbers, resuming, what is refused."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

import denoscope
from denoscope.analysis.localisation.layer_prompts import reading_layers
from denoscope.bench import Plan, cost
from denoscope.bench.locating import layers_for
from denoscope.bench.repeating import probes_of
from denoscope.editing import quickfix, uce
from denoscope.models.store.store import Store
from tests.denoscope.bench.conftest import nothing

pytestmark = pytest.mark.stress  # each is long; make stress

METHODS = {"quickfix": quickfix, "uce": uce}
ONE = {"quickfix": quickfix}
TIMES = ["seconds"]


def run(setup, folder, **more):
    return denoscope.bench.edits(**{**setup, "methods": METHODS, "folder": folder, **more})


def same(one, other):
    """Equal in all but seconds, for the methods of the first."""
    methods = set(one.cells["method"])
    for name in ("cells", "pictures", "many", "distances"):
        first, second = (getattr(b, name).drop(columns=TIMES, errors="ignore") for b in (one, other))
        second = second[second["method"].isin(methods)]
        by = [c for c in ("method", "concept", "prompt", "seed", "edits", "order") if c in first]
        first, second = (f.sort_values(by).reset_index(drop=True) for f in (first, second))
        pd.testing.assert_frame_equal(first, second, check_exact=name != "distances")


@pytest.fixture(scope="module")
def found(setup, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    return run(setup, folder), folder


def test_every_method_meets_every_concept(found, concepts):
    cells = found[0].cells
    assert len(cells) == len(METHODS) * len(concepts) and cells["reason"].isna().all()
    assert (cells["drift"] > 0).all() and (cells["seconds"] > 0).all()
    assert set(cells["weights"]) == {256, 2048}
    pictures = found[0].pictures
    assert len(pictures) == 2 * len(concepts) * 5 * 2  # methods, texts, seeds
    assert (
        repr(found[0]) == "EditBenchmark(StableDiffusionPipeline: 2 methods x 2 concepts, 4 of 4 edits made)"
    )


def test_capitals_that_are_read_alike_are_painted_once_and_judged_alike(found):
    pictures = found[0].pictures.set_index(["method", "concept", "aim", "seed"])
    for column in ("fit_after", "moved", "shown_before"):
        assert pictures.xs("capitals", level="aim")[column].equals(
            pictures.xs("efficacy", level="aim")[column]
        )


def test_the_numbers_are_those_of_the_pictures(found, setup, judge):
    from denoscope.bench.painting import rounded
    from denoscope.probes.sweep.sweeping import SweepRun, sweep

    model, row = setup["model"], found[0].pictures.query("method == 'uce' and aim == 'paraphrase'").iloc[0]
    concept = next(c for c in setup["concepts"] if c.name == row["concept"])
    runs = [SweepRun(row["prompt"], s) for s in (0, 1)]
    with torch.no_grad():
        clean = rounded(model.decode(sweep(model, runs, steps=1).latents))[0] / 255
        with uce(model, concept.requests).applied(model):
            edited = rounded(model.decode(sweep(model, runs, steps=1).latents))[0] / 255
    assert float((edited - clean).abs().mean()) == pytest.approx(row["moved"], abs=1e-6)
    fit = judge.similarity(edited[None], [row["wanted"]])
    assert float(fit) == pytest.approx(row["fit_after"], abs=1e-6)


def test_an_edit_that_changes_nothing_has_the_numbers_of_the_unedited_model(setup, tmp_path):
    found = run(setup, tmp_path, methods={"nothing": nothing})
    for name in ("efficacy", "generality", "neighbours", "bystanders"):
        assert found.cells[f"{name}_before"].equals(found.cells[f"{name}_after"])
    assert (found.cells["drift"] == 0).all() and (found.pictures["moved"] == 0).all()
    assert found.many["neighbours_before"].equals(found.many["neighbours_after"])
    assert (found.many["drift"] == 0).all()


def test_asking_outright_for_what_stays_is_the_unedited_model(found):
    still = found[0].pictures.query("aim in ('neighbour', 'bystander')")
    assert still["fit_before"].equals(still["fit_oracle"])


def test_a_run_that_was_stopped_goes_on_and_ends_as_one_that_was_not(setup, found, tmp_path):
    painted = []

    def stop(done, total, what):
        painted.append(done)
        if done > 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(setup, tmp_path, methods=ONE, progress=stop)
    left = cost(**{**setup, "methods": ONE, "folder": tmp_path})
    assert 0 < left.pictures < left.total
    same(run(setup, tmp_path, methods=ONE), found[0])


def test_what_is_done_is_not_done_again(setup, found):
    left = cost(**{**setup, "methods": METHODS, "folder": found[1]})
    assert (left.pictures, left.edits) == (0, 0) and left.total > 0
    assert "0 edits and at most 0 pictures are left to make" in str(left)

    def never(model, requests):
        raise AssertionError("made again")

    never.__qualname__ = "quickfix"
    same(run(setup, found[1], methods={"quickfix": never, "uce": uce}), found[0])


def test_the_order_of_concepts_does_not_matter(setup, found, concepts, tmp_path):
    same(run(setup, tmp_path, methods=ONE, concepts=concepts[::-1]), found[0])


def test_a_request_that_a_method_refuses_is_in_the_tables(setup, tmp_path):
    found = run(setup, tmp_path, methods=["time"])
    reasons = found.cells.set_index("concept")["reason"]
    assert "'dog' is not 'cat' with more words" in reasons["cat -> dog"]
    assert reasons.isna()["red -> red cook"]
    assert found.many["reason"].tolist() == ["it takes 1 of the 2 requests; 2 are needed"] * 2


def test_layers_are_located_for_a_method_that_is_told(setup, tmp_path):
    found = run(setup, tmp_path, methods=["locoedit"], many=())
    assert found.cells["reason"].isna().all()
    assert set(found.cells["weights"]) == {1024}  # keys and values of two layers
    assert found.many.empty


def test_layers_at_random_and_all_layers_stand_beside_the_found_ones(setup, tmp_path):
    names = ["locoedit", "locoedit/random", "locoedit/all"]
    found = run(setup, tmp_path, methods=names, many=())
    weights = found.cells.groupby("method")["weights"].first()
    layers = reading_layers(setup["model"])
    assert weights[names[0]] == weights[names[1]] == 1024
    assert weights[names[2]] == 512 * len(layers) > 1024
    plan, store = Plan.of(**setup, methods=names[1:2]), Store(tmp_path / "layers")
    drawn = {tuple(layers_for(plan, store, plan.methods[0], {"cat": str(i)})) for i in range(40)}
    assert len(drawn) == len(layers) - 1  # every pair of neighbours, each by its request


def test_many_edits_are_all_made_and_taken_back(setup, found):
    many = found[0].many
    assert (many["made"] == 2).all() and many["reason"].isna().all()
    assert sorted(many["order"].unique()) == ["at once", "one after the other"]
    quick = many[many["method"] == "quickfix"].set_index("order")
    assert quick.loc["at once", "drift"] != quick.loc["one after the other", "drift"]


def test_one_after_the_other_is_each_on_the_model_so_far(setup, concepts, tmp_path):
    seen = []

    def watching(model, requests):
        name = "text_encoder.encoder.layers.0.self_attn.out_proj.weight"
        seen.append((*requests, float(model.parameter(name).detach().double().sum())))
        return quickfix(model, requests)

    run(setup, tmp_path, methods={"watching": watching})
    singles, first, second, both = seen[:2], *seen[2:]
    assert len({total for *_, total in singles}) == 1
    assert first[-1] == singles[0][-1] == both[-1] and second[-1] != first[-1]
    assert len(both) == 3  # two words and the weights


def test_things_that_name_an_edited_word_are_no_test_of_specificity(concepts):
    texts = [p.prompt for p in probes_of(concepts)]
    assert texts == ["a cat", "a red", "a hat", "a man", "a mat"]


def test_texts_that_the_model_cannot_read_are_told(setup, concepts, tmp_path):
    from denoscope.bench import Concept, Probe

    long = "a cat " * 40
    some = Concept("x", "cat", "dog", (Probe("efficacy", long, "a dog", ("a cat",)),))
    found = run(setup, tmp_path, concepts=[some], many=())
    assert found.cells["reason"].str.contains("token").all()
    assert found.summary().empty


def test_faults_of_a_method_are_no_refusals(setup, tmp_path):
    def broken(model, requests):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(setup, tmp_path, methods={"broken": broken})


@pytest.mark.parametrize(
    ("blind", "said"),
    [
        (lambda images, texts: torch.ones(len(images), len(texts)), "says the same of all pictures"),
        (lambda images, texts: images.mean(), "returned shape"),
    ],
)
def test_a_judge_that_does_not_look_is_an_error(setup, tmp_path, blind, said):
    with pytest.raises(ValueError, match=said):
        run(setup, tmp_path, judge=blind)


def test_a_function_judges_and_gives_no_distances(setup, tmp_path):
    found = run(setup, tmp_path, judge=lambda x, t: setup["judge"].similarity(x, t), many=())
    assert found.cells["kid"].isna().all() and found.distances["fid"].isna().all()
    assert found.cells["efficacy_after"].notna().all()


def test_contradictions_between_concepts_are_told_where_they_are_solved_at_once(setup, tmp_path):
    from tests.denoscope.bench.conftest import concept

    some = [concept("cat", "dog", "hat", "mat"), concept("cat", "man", "hat", "mat")]
    found = run(setup, tmp_path, methods=ONE, concepts=some)
    many = found.many.set_index("order")
    assert "'cat' is asked to mean" in many.loc["at once", "reason"]
    assert many.loc["at once", "made"] == 0
    assert many.loc["one after the other", "made"] == 2
