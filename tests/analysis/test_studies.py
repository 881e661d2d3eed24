"""Causal tracing and evaluations in a store: equal without one, and finished ones run nothing."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from denoscope.analysis import (
    evaluate_edit,
    plan_study,
    rows_per_second,
    seconds_per_picture,
    trace_denoiser,
    trace_text,
)
from denoscope.analysis.edit_evaluation.prompts import evaluation_prompts
from denoscope.analysis.mediation.corruption import Noise, Swap
from denoscope.analysis.mediation.runs import CausalExperiment
from denoscope.analysis.metrics import latent_distance, text_fit
from denoscope.analysis.plans import StudyPlan
from denoscope.editing import quickfix
from denoscope.models.errors import UsageError
from denoscope.models.judges import callable_judge, clip_judge, load_judge
from denoscope.models.judges.choosing import judge_spec
from denoscope.models.store.ledger import Ledger
from denoscope.models.store.studies import read_studies, units_table
from denoscope.models.synthetic.tiny_judges import save_tiny_clip
from denoscope.probes.trace import trace

ONE = {"seeds": [0], "metric": latent_distance(), "steps": 2, "corruption": Noise(draws=1), "batch": 8}
SITE = "unet/mid.attn.0.0/cross_attn.out"
STUDIES = {
    "text": (trace_text, {"layers": [0], "kinds": ["mlp.out"], "tokens": [1, 2]}),
    "denoiser": (trace_denoiser, {"sites": SITE, "direct": True}),
    "in place": (trace_denoiser, {"sites": SITE, "source": "in_place"}),
}


@pytest.mark.parametrize("name", STUDIES)
def test_a_finished_tracing_runs_nothing(tiny, tmp_path, monkeypatch, name):
    function, more = STUDIES[name]
    call = {"prompts": ["a red cat"], "subject": "cat", **ONE, **more}
    plain = function(tiny, **call)
    first = function(tiny, **call, store=tmp_path)
    assert first.data.identical(plain.data)
    with monkeypatch.context() as patched:
        patched.setattr("denoscope.probes.sweep.sweeping.SweepExecutor", None)
        assert function(tiny, **call, store=tmp_path).data.identical(plain.data)
    (record,) = read_studies(tmp_path)
    assert record.done and record.rows == plain.data.attrs["rows"]
    assert sorted(r["value"] for r in units_table(tmp_path))[0] >= 0


def same_or(base, **changed):
    return [base, *({**base, name: value} for name, values in changed.items() for value in values)]


ONE_SITE = {**ONE, "prompts": ["a red cat"], "subject": "cat"}
SITES = [SITE, "unet/down.1.attn.0.0/cross_attn.out"]
TRACINGS = {
    "text": (
        trace_text,
        same_or(
            {**ONE_SITE, "layers": [0], "kinds": ["mlp.out"], "tokens": [1, 2]},
            layers=[[1], [0, 1]],
            kinds=[["self_attn.out"]],
            tokens=[[1, 3], [(1, 2)], "roles"],
            window=[3],
            direct=[True],
        ),
    ),
    "denoiser": (
        trace_denoiser,
        same_or(
            {**ONE_SITE, "sites": SITES},
            prompts=[["a cat on a mat"], ["a cat"]],
            subject=["red"],
            seeds=[[1]],
            metric=[latent_distance(torch.zeros(4, 8, 8)), latent_distance(torch.ones(4, 8, 8))],
            corruption=[Noise(2.0, 1), Noise(3.0, 2), Noise(3.0, 1, 1), Swap("dog"), Swap("cow")],
            sites=[[SITE], SITES[::-1]],
            windows=[[[0]], [[1]], [[0, 1]]],
            neighbours=[3],
            direct=[True],
            source=["in_place"],
        ),
    ),
    "heads": (
        trace_denoiser,
        same_or({**ONE_SITE, "sites": [SITE.replace("out", "z")]}, heads=[[0], [1], [[0, 1]]]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TRACINGS)
def test_every_part_of_a_tracing_is_in_its_key(tiny, tmp_path, monkeypatch, name):
    made = []

    def sample(_, p, seed, *__):
        made.append((p, seed))
        return np.zeros(1), 1  # the same number for every place

    monkeypatch.setattr(CausalExperiment, "sample", sample)
    function, calls = TRACINGS[name]
    for n, call in enumerate(calls, 1):
        function(tiny, **call, store=tmp_path)
        assert len(made) == n, call
    function(tiny, **calls[0], store=tmp_path)
    assert len(made) == len(calls)
    assert len(read_studies(tmp_path)) == len(calls)


PLANNED = {
    "windows": (trace_denoiser, {**ONE_SITE, "sites": SITES, "windows": [[0], [1]], "steps": 3, "batch": 3}),
    "direct": (trace_denoiser, {**ONE_SITE, "sites": SITES, "direct": True, "seeds": [0, 1]}),
    "in place": (trace_denoiser, {**ONE_SITE, "sites": SITES, "source": "in_place", "windows": [[1]]}),
    "unguided": (trace_denoiser, {**ONE_SITE, "sites": SITES, "guidance": 1.0, "corruption": Noise(draws=2)}),
    "both prompts": (
        trace_text,
        {**ONE_SITE, "prompts": ["a red cat", "a cat"], "tokens": "roles", "layers": [0], "direct": True},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANNED)
def test_a_plan_counts_as_the_sweep_does(tiny, name):
    function, call = PLANNED[name]
    plan, found = plan_study(function, tiny, **call), function(tiny, **call)
    assert plan.rows == found.rows and plan.reference_rows == found.reference_rows and plan.exact
    assert plan.units == len(found.data.prompt) * len(found.data.seed)


def test_a_plan_tells_what_is_kept_and_how_long(tiny):
    call = {**ONE_SITE, "sites": SITES, "steps": 3}
    plan = plan_study(trace_denoiser, tiny, **call)
    run = trace(tiny, ["a red cat"], seeds=[0], sites=SITES, steps=3)
    assert plan.kept == run.nbytes
    assert plan_study(trace_denoiser, tiny, **call, windows=[[1]]).kept == run.nbytes // 3
    assert plan.seconds(2.0) == plan.rows / 2 and rows_per_second(tiny, samples=2, steps=1) > 0
    with pytest.raises(UsageError, match="rows_per_second cannot be counted .*trace_text can"):
        plan_study(rows_per_second, tiny)


@pytest.mark.parametrize("looks", [True, False])
@pytest.mark.parametrize("name", STUDIES)
def test_a_plan_counts_the_pictures_that_are_decoded(tiny, monkeypatch, name, looks):
    function, more = STUDIES[name]
    metric = text_fit(load_judge("emoji"), "a cat") if looks else latent_distance()
    call = {"prompts": ["a red cat"], "subject": "cat", **ONE, **more, "metric": metric, "seeds": [0, 1]}
    plan, seen, decode = plan_study(function, tiny, **call), [], type(tiny).decode

    def counted(self, latents, *args, **kwargs):
        seen.append(len(latents))
        return decode(self, latents, *args, **kwargs)

    monkeypatch.setattr(type(tiny), "decode", counted)
    function(tiny, **call)
    assert plan.pictures == sum(seen) and (sum(seen) > 0) == looks
    assert seconds_per_picture(tiny, samples=2) > 0


def test_a_plans_time_is_that_of_all_it_counts():
    plan = StudyPlan("x", 1, 1, 100, True, None, 8, 0, pictures=10, single=20, backward=5)
    assert plan.seconds(10.0) == pytest.approx(100 / 10 + 2 * 5 / 10)
    assert plan.seconds(10.0, single=2.0, picture=0.5) == pytest.approx(80 / 10 + 30 / 2 + 5)
    for wrong, said in (({"single": 0.0}, "single is 0.0"), ({"picture": -1.0}, "picture is -1.0")):
        with pytest.raises(UsageError, match=said):
            plan.seconds(10.0, **wrong)


@pytest.mark.parametrize("batch", [3, 8, 16])
@pytest.mark.parametrize("name", STUDIES)
def test_a_plan_tells_what_a_store_will_hold(tiny, tmp_path, name, batch):
    function, more = STUDIES[name]
    call = {"prompts": ["a red cat"], "subject": "cat", **ONE, **more, "batch": batch}
    call |= {"seeds": [0, 1], "corruption": Noise(draws=12)}
    plan = plan_study(function, tiny, **call)
    function(tiny, **call, store=tmp_path)
    check_stored(tmp_path, plan)
    assert plan.files == 0 if batch == 3 else plan.files > 0


def test_a_plan_tells_what_a_store_will_hold_of_an_evaluation(tiny, tmp_path):
    prompts = evaluation_prompts({"cat": "dog"}, ["a {}", "a red {}"])
    call = {"prompts": prompts, "judge": load_judge("emoji"), "seeds": range(5), "steps": 1, "batch": 9}
    edit = quickfix(tiny, {"cat": "dog"})
    plan = plan_study(evaluate_edit, tiny, edit.applied, **call)
    evaluate_edit(tiny, edit.applied, **call, store=tmp_path)
    check_stored(tmp_path, plan)
    assert plan.files > 0


def check_stored(folder, plan):
    """Files and bytes that lie there are those of a plan."""
    with Ledger(folder, None) as ledger:
        units = ledger.select("SELECT key, file FROM units WHERE arrays in ('latents', 'pictures')")
        found = [x for key, _ in units for x in ledger.get(key).tensors.values()]
    assert plan.files == len([file for _, file in units if file]) == len(list(folder.glob("arrays/*/*")))
    assert plan.stored == sum(x.numel() * x.element_size() for x in found) > 0


def test_a_judge_is_what_it_computes_with_wherever_it_lies(tmp_path):
    judge = clip_judge(save_tiny_clip(tmp_path / "a"), {"animal": ["a cat", "a dog"]})
    embedded = load_judge("emoji")
    before, first = judge_spec(judge), judge_spec(embedded)
    assert judge_spec(replace(judge, name="another/folder")) == before
    assert judge_spec(replace(judge, vocabulary={"animal": ("a dog", "a cat")})) != before
    prepared = replace(judge.preparation, mode="bilinear", std=(1.0, 1.0, 1.0))
    assert judge_spec(replace(judge, preparation=prepared)) != before
    assert embedded.about["weights"]  # which is kept, unlike the spec
    with torch.no_grad():
        judge.network.visual_projection.weight.mul_(2)
    assert judge_spec(judge) != before
    other = copy.deepcopy(embedded)
    assert judge_spec(other) == first
    with torch.no_grad():
        other.image_tower.head[0].weight.mul_(2)
    assert judge_spec(other) != first and other.about == embedded.about


def test_another_metric_is_another_study_and_a_function_is_refused(tiny, tmp_path):
    call = {"prompts": ["a red cat"], "subject": "cat", **ONE, **STUDIES["denoiser"][1]}
    with pytest.raises(UsageError, match="the metric .*is code of your own, and a store cannot tell"):
        trace_denoiser(tiny, **{**call, "metric": lambda o: o.latents.mean((1, 2, 3))}, store=tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_a_finished_evaluation_paints_and_asks_nothing(tiny, tmp_path, monkeypatch):
    asked = []

    def light(images, texts):
        asked.append(len(images))
        return images.mean((1, 2, 3))[:, None] * torch.arange(1.0, len(texts) + 1)

    edit, tried = quickfix(tiny, {"cat": "dog"}), evaluation_prompts({"cat": "dog"}, ["a {}"])
    call = {"prompts": tried, "judge": callable_judge(light), "seeds": [0, 1], "steps": 1, "batch": 2}
    with pytest.raises(UsageError, match="the judge .*light is code of your own"):
        evaluate_edit(tiny, edit.applied, **call, store=tmp_path)
    light.spec = {"name": "light", "version": 1}
    plain = evaluate_edit(tiny, edit.applied, **call)
    first = evaluate_edit(tiny, edit.applied, **call, store=tmp_path)
    asked.clear()
    with monkeypatch.context() as patched:
        patched.setattr(type(tiny), "decode", None)
        again = evaluate_edit(tiny, edit.applied, **call, store=tmp_path)
    assert not asked
    assert plain.data.identical(first.data) and plain.data.identical(again.data)
    assert all(torch.equal(plain.images[s], again.images[s]) for s in plain.images)
    assert read_studies(tmp_path)[0].done
    half = 0.5 * edit
    plain = evaluate_edit(tiny, half.applied, **call)
    assert evaluate_edit(tiny, half.applied, **call, store=tmp_path).data.identical(plain.data)
    light.spec = {"name": "light", "version": 2}
    asked.clear()
    evaluate_edit(tiny, edit.applied, **call, store=tmp_path)
    assert asked  # another judge
