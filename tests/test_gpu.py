"""The benchmark of a GPU, on tiny models: what it measures, keeps, goes on with and says of what failed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

import denoscope
from denoscope.analysis import Swap, metrics, plan_study, trace_denoiser
from denoscope.models.load import load
from denoscope.models.synthetic import tiny, tiny_families

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "benchmarks"))

import gpu  # noqa: E402
import gpu_compiling  # noqa: E402
import gpu_tables  # noqa: E402
import gpu_timing  # noqa: E402
import pages  # noqa: E402

EMPTY = "# GPU\n<!-- gpu -->\nNot run on a GPU yet.\n<!-- /gpu -->\n"


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Call it as it is called, beside a page of its own; returns what it prints."""
    (tmp_path / "docs").mkdir()
    page = tmp_path / "docs" / "gpu.md"
    page.write_text(EMPTY)
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    for module, smaller in gpu.TINY.items():
        for name in smaller:
            monkeypatch.setattr(module, name, getattr(module, name))  # put back afterwards

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["gpu.py", *arguments])
        gpu.main()
        return capsys.readouterr().out

    run.page, run.folder = page, tmp_path / "build" / "findings" / "gpu-tiny"
    return run


def parts_of(call, monkeypatch, **parts):
    monkeypatch.setattr(gpu, "PARTS", {name: (measure, 0.5) for name, measure in parts.items()})
    tables = [("**x**", name, ("n",), lambda found, name=name: (found[name]["n"],)) for name in parts]
    monkeypatch.setattr(gpu_tables, "TABLES", tables)


def out_of_memory(*_):
    raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_nothing_is_measured(call):
    assert (
        call() == "there is no GPU here, so nothing is measured; --tiny goes through the same code on a CPU\n"
    )
    assert call.page.read_text() == EMPTY and not call.folder.parent.exists()


@pytest.mark.slow
def test_all_parts_of_a_tiny_size(call):
    said = call("--tiny", "--sizes", "pixart-sigma")
    found = json.loads((call.folder / "pixart-sigma.json").read_text())["parts"]
    assert list(found) == list(gpu.PARTS) and not any("failed" in part for part in found.values())
    assert found["tracing"]["equal"] and found["compiling"]["equal"] and found["compiling"]["refused"]
    assert found["map"]["rows"] == found["map"]["measured"] < found["map"]["published"]
    assert found["published"]["rows"] == found["map"]["published"]
    assert [one["batch"] for one in found["sweep"]["batches"]] == [1, 2, 4]
    text = call.page.read_text()
    assert "Tiny models: a rehearsal, no measurement. CPU" in text and "| pixart-sigma |" in text
    before = {path: path.stat().st_mtime_ns for path in call.folder.iterdir()}
    assert "done" in said and "done" not in call("--tiny", "--sizes", "pixart-sigma")
    assert {path: path.stat().st_mtime_ns for path in call.folder.iterdir()} == before


def test_what_failed_is_said_and_tried_again(call, monkeypatch):
    broken = [True]

    def second(*_):
        if broken:
            raise ValueError("no such kernel\nand more")
        return {"n": "7"}

    counted = []
    parts_of(call, monkeypatch, first=lambda *_: counted.append(1) or {"n": "5"}, second=second)
    with pytest.raises(SystemExit, match="failed: sd-1.5 second; the same call tries them again"):
        call("--tiny", "--sizes", "sd-1.5")
    assert "| sd-1.5 | 5 |" in call.page.read_text()
    assert "| sd-1.5 | ValueError: no such kernel |" in call.page.read_text()
    broken.clear()
    call("--tiny", "--sizes", "sd-1.5")
    assert "| sd-1.5 | 7 |" in call.page.read_text() and counted == [1]


def test_a_size_that_does_not_fit_says_so_and_others_go_on(call, monkeypatch):
    parts_of(call, monkeypatch, first=lambda *_: {"n": "5"}, second=out_of_memory)
    real = gpu.opened
    monkeypatch.setattr(
        gpu, "opened", lambda size, _: out_of_memory() if size == "sdxl" else real(size, True)
    )
    call("--tiny", "--sizes", "sdxl", "sd-1.5")
    lines = [line for line in call.page.read_text().splitlines() if line.startswith("| sd")]
    assert lines == [
        "| sd-1.5 | 5 |",
        "| sdxl | does not fit the memory |",
        "| sd-1.5 | does not fit the memory |",
        "| sdxl | does not fit the memory |",
    ]


def test_no_time_is_no_failure_and_is_gone_on_with(call, monkeypatch):
    parts_of(call, monkeypatch, first=lambda *_: {"n": "5"})
    call("--tiny", "--sizes", "sd-1.5", "--limit", "0")
    assert "| sd-1.5 | no time was left |" in call.page.read_text()
    call("--tiny", "--sizes", "sd-1.5")
    assert "| sd-1.5 | 5 |" in call.page.read_text()


def test_results_of_another_machine_are_made_anew(call, monkeypatch):
    counted = []
    parts_of(call, monkeypatch, first=lambda *_: counted.append(1) or {"n": "5"})
    call("--tiny", "--sizes", "sd-1.5")
    path = call.folder / "sd-1.5.json"
    path.write_text(path.read_text().replace('"CPU"', '"NVIDIA H200"'))
    call("--tiny", "--sizes", "sd-1.5")
    assert counted == [1, 1]


def test_tiny_models_leave_the_page_of_the_checkout(call, monkeypatch, tmp_path):
    parts_of(call, monkeypatch, first=lambda *_: {"n": "5"})
    monkeypatch.setattr(gpu, "CHECKOUT", tmp_path.resolve())
    assert "| sd-1.5 | 5 |" in call("--tiny", "--sizes", "sd-1.5")
    assert call.page.read_text() == EMPTY


@pytest.mark.parametrize("make", [tiny.tiny_sd, tiny_families.tiny_flux])
def test_the_published_scheme_gives_the_map_s_scores(make, monkeypatch):
    monkeypatch.setattr(gpu_timing, "STEPS", 2)
    model, distance, rows = load(make()), metrics.latent_distance(), 0
    sites = gpu_timing.crossing(model)[:2]
    given = model, [gpu_timing.PROMPT], gpu_timing.WORD
    call = {"seeds": [0], "metric": distance, "corruption": Swap(gpu_timing.OTHER), "steps": 2}
    call |= {"sites": sites, "windows": [[0], [1]]}
    scores = trace_denoiser(*given, **call).data.restored.values
    (prompt,) = model.encode([gpu_timing.PROMPT])
    for i, site in enumerate(sites):
        for step in range(2):
            latents, more = gpu_timing.restored(model, site, step)
            found = distance(metrics.Outcome(latents[2:], (prompt,), model.decode, latents[:1]))
            assert float(found) == pytest.approx(scores[i, step].item(), rel=1e-4, abs=1e-6)
            rows += more
    assert rows == plan_study(trace_denoiser, *given, **call).reference_rows


def test_a_sweep_grows_until_the_memory_ends(tiny_model, monkeypatch):
    real = denoscope.sweep

    def sweep(model, runs, **how):
        return out_of_memory() if len(runs) > 2 else real(model, runs, **how)

    monkeypatch.setattr(denoscope, "sweep", sweep)
    found = gpu_timing.sweeping(tiny_model, 60.0)
    assert [one["batch"] for one in found["batches"]] == [1, 2] and found["ended"] == "of memory, at 4"
    assert all(one["pace"] > 0 for one in found["batches"])


def test_a_map_takes_the_largest_batch_that_fits_and_less_where_time_is_short(tiny_model, monkeypatch):
    monkeypatch.setattr(gpu_timing, "STEPS", 2)
    real = gpu_timing.trace_denoiser

    def fits(*args, **how):
        return out_of_memory() if how["batch"] > 4 else real(*args, **how)

    monkeypatch.setattr(gpu_timing, "trace_denoiser", fits)
    monkeypatch.setattr(gpu_timing, "plan_study", lambda _, *args, **how: plan_study(real, *args, **how))
    whole = gpu_timing.causal_map(tiny_model, 600.0)
    assert whole["batch"] == 4 and whole["measured"] == whole["rows"]
    part = gpu_timing.causal_map(tiny_model, 0.0)
    assert part["part"] == [1, 1] and part["rows"] == whole["rows"] > part["measured"]


def test_times_of_parts_are_told_as_such():
    assert gpu_tables._whole(2.0, 10, 10) == "2.00 s"
    assert gpu_tables._whole(2.0, 10, 6000) == "about 20 min, from 10 rows in 2.00 s"
    assert gpu_tables.text({}) == "Not run on a GPU yet."


def test_less_and_less_of_a_map():
    found = [(len(sites), len(steps)) for sites, steps in gpu_timing.parts(range(5), range(4))]
    assert found == [(5, 4), (2, 4), (1, 4), (1, 2), (1, 1)]


def test_compiled_parts_hold_nothing_watched_and_are_put_back(tiny_model, monkeypatch):
    monkeypatch.setattr(gpu_compiling, "COMPILER", {"backend": "eager"})
    sites = gpu_timing.crossing(tiny_model)[:1]
    with gpu_compiling.compiled(tiny_model, sites) as parts:
        assert parts and not {tiny_model.module(sites[0])} & {m for part in parts for m in part.modules()}
        assert all("forward" in vars(part) for part in parts)
    assert not any("forward" in vars(part) for part in parts)


@pytest.fixture(scope="module")
def tiny_model():
    return load(tiny.tiny_sd())
