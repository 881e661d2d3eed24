"""Causal tracing and evaluations in a store: equal without one, and finished ones run nothing."""

import pytest
import torch

from denoscope.analysis import evaluate_edit, trace_denoiser, trace_text
from denoscope.analysis.edit_evaluation.prompts import evaluation_prompts
from denoscope.analysis.mediation.corruption import Noise
from denoscope.analysis.metrics import latent_distance
from denoscope.editing import quickfix
from denoscope.models.errors import UsageError
from denoscope.models.judges import callable_judge
from denoscope.models.store.studies import read_studies, units_table

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


def test_another_metric_is_another_study_and_a_function_is_refused(tiny, tmp_path):
    call = {"prompts": ["a red cat"], "subject": "cat", **ONE, **STUDIES["denoiser"][1]}
    with pytest.raises(UsageError, match="the metric .*is a function, and a store cannot tell"):
        trace_denoiser(tiny, **{**call, "metric": lambda o: o.latents.mean((1, 2, 3))}, store=tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_a_finished_evaluation_paints_and_asks_nothing(tiny, tmp_path, monkeypatch):
    asked = []

    def light(images, texts):
        asked.append(len(images))
        return images.mean((1, 2, 3))[:, None] * torch.arange(1.0, len(texts) + 1)

    edit, tried = quickfix(tiny, {"cat": "dog"}), evaluation_prompts({"cat": "dog"}, ["a {}"])
    call = {"prompts": tried, "judge": callable_judge(light), "seeds": [0, 1], "steps": 1, "batch": 2}
    with pytest.raises(UsageError, match="the judge .*light is a function"):
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
