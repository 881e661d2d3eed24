"""``denoscope plan``: what is told before is what is taken; full-size models; the pace of this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch

from denoscope import load
from denoscope.analysis import bias_features, evaluate_edit, plan_study
from denoscope.analysis.edit_evaluation.prompts import evaluation_prompts
from denoscope.cli import pace
from denoscope.explanation.explain import explain
from denoscope.explanation.planning import plan_explanation
from denoscope.models.run.cost import row_cost
from denoscope.models.site import Site
from denoscope.models.synthetic.published import PUBLISHED
from denoscope.models.synthetic.sizes import full_size
from denoscope.models.synthetic.tiny_families import tiny_flux
from denoscope.probes import Channels, Dictionary
from tests.denoscope.cli.calling import call, one_line

SITE = Site("unet/mid.attn.0.0/cross_attn.out")


@contextmanager
def counting(model: Any) -> Iterator[list[int]]:
    """The rows of each call of the denoiser."""
    rows = list[int]()

    def look(_: Any, args: Any, given: Any) -> None:
        first = args[0] if args else given.get("sample", given.get("hidden_states"))
        rows.append(len(first))

    network = model.components[model.input_site.component]
    hook = network.register_forward_pre_hook(look, with_kwargs=True)
    try:
        yield rows
    finally:
        hook.remove()


def test_an_evaluation_is_counted(tiny):
    tried = evaluation_prompts({"cat": "dog"}, ["a red {}", "a {}"], neighbourhood={"dog": ("a red {}",)})
    call_: Any = {"seeds": [0, 1], "steps": 2, "batch": 3, "guidance": 3.0}
    fits = lambda images, texts: images.mean((1, 2, 3))[:, None] * torch.arange(1.0, len(texts) + 1)  # noqa: E731
    nothing = lambda _: nullcontext()  # noqa: E731
    plan = plan_study(evaluate_edit, tiny, nothing, tried, judge=fits, **call_)
    with counting(tiny) as rows:
        evaluate_edit(tiny, nothing, tried, judge=fits, **call_)
    assert plan.rows == sum(rows) and plan.exact and plan.units == len(rows) // 2
    assert plan.samples == max(rows) // 2


@pytest.mark.stress
def test_the_runs_of_a_feature_search_are_counted(tiny):
    some, flat = torch.eye(16), torch.zeros(1, 16)
    own = Dictionary(Channels(SITE, ("token", "channel")), some, some, flat, flat, flat, k=2)
    classes = {"cat": ["a cat", "a red cat", "a cat"], "dog": ["a dog", "a red dog", "a dog"]}
    call_: Any = {"seeds": [0, 1, 2], "batch": 4, "steps": 2, "guidance": 3.0}
    plan = plan_study(bias_features, tiny, own, classes, **call_)
    with counting(tiny) as rows:
        bias_features(tiny, own, classes, **call_)
    assert plan.rows == sum(rows) == 24 and plan.exact and plan.units == len(rows) // 2 == 2


@pytest.mark.stress
@pytest.mark.parametrize("made", [None, tiny_flux], ids=["cross-attention", "joint attention"])
def test_an_explanation_is_counted(tiny, made):
    model = tiny if made is None else load(made())
    call_: Any = {"words": ["cat"], "steps": 1, "levels": 4}
    plan = plan_explanation(model, "a red cat", **call_)
    with counting(model) as rows:
        explain(model, "a red cat", **call_)
    assert plan.rows == sum(rows) and plan.exact


@pytest.mark.stress
def test_a_row_costs_what_its_products_do():
    cost = row_cost(full_size("sd-1.5"))
    assert cost.flops == pytest.approx(0.803e12, rel=0.01)
    assert cost.peak(4) - cost.peak(0) == 4 * cost.live and cost.peak(0) == cost.weights
    assert 4 * 64 * 64 * 320 < cost.live < 200 * 4 * 64 * 64 * 320  # some maps of the first level, not all


def test_a_full_size_model_is_counted_without_weights():
    run = ["plan", "features", "", "--steps", 3, "--full-size", "ddpm-cifar10"]
    told = json.loads(call(*run, "--gpu", "h100", "--json").stdout)
    assert told["rows"] == 4 * 3 and told["seconds"] == pytest.approx(told["flops"] / 989e12)
    assert told["weights"] == 2 * 35_746_307 and "NVIDIA H100" in told["whence"]
    one_line(call(*run[:-1], "sd-1.6"), 2, "sd-1.5")
    one_line(call(*run, "--gpu", "h900"), 2, "no peak of 'h900'", "h100")
    one_line(call(*run, "--pace", 0), 2, "--pace is 0")


@pytest.mark.stress
@pytest.mark.parametrize("name", [name for name in PUBLISHED if name not in ("dit-xl-2", "ddpm-cifar10")])
@pytest.mark.parametrize("work", ["locate", "edit", "explain"])
def test_all_works_are_counted_for_every_configuration(name, work, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    about = [] if work == "explain" else ["--about", "cat"]
    about += ["--change-to", "dog"] if work == "edit" else []
    inside = ["--in", full_size(name).input_site.component] if work == "locate" else []
    done = call("plan", work, "a photo of a cat", *about, *inside, "--full-size", name, "--steps", 2)
    shown = " ".join(done.output.split())
    assert done.exit_code == 0 and "FLOP a row" in shown
    assert "not known; --gpu or --pace says it" in shown and " time " not in shown


def test_the_pace_of_this_machine_is_kept(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("denoscope.cli.pace.SAMPLES", 1)
    found = json.loads(call("plan", "--calibrate", "--model", folder, "--json").stdout)
    run = ["plan", "features", "a cat", "a dog", "--model", folder, "--steps", 1, "--json"]
    told = json.loads(call(*run).stdout)
    assert told["rows"] == 2 * 4 * 2 and told["rows_per_second"] == found["rows_per_second"]
    assert (
        told["seconds"] == told["rows"] / told["rows_per_second"] and "measured here before" in told["whence"]
    )
    assert call("plan", "--calibrate", "features", "a cat").exit_code == 2
    (tmp_path / "denoscope" / "pace.json").write_text("{")
    assert not pace._kept()  # and is measured anew
