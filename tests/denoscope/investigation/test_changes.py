"""The changes of an investigation: offered, written, judged, read again, applied and exported."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from html import unescape
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import denoscope
from denoscope import Direction, Edit, load, trace
from denoscope.analysis import Mediation, site_direction
from denoscope.analysis.scores import read_store, save_store
from denoscope.investigation import Investigation
from denoscope.investigation.case import prepare
from denoscope.investigation.changes import by_directions, by_mediation
from denoscope.investigation.changes.acting import Push, Steer
from denoscope.investigation.changes.change import Change, file_name
from denoscope.investigation.changes.ground import Ground
from denoscope.investigation.changes.judging import NOTHING, OUTRIGHT, judged, standing
from denoscope.investigation.changes.making import chosen_edit, make, read
from denoscope.investigation.folder import STAGE
from denoscope.investigation.stages.denoiser_cause import denoiser_cause
from denoscope.models.synthetic.tiny_families import tiny_flux, tiny_sd3
from denoscope.probes import Learning, train_dictionary
from denoscope.report.changes import Changes

SITE = "unet/mid.attn.0.0/cross_attn.out"


def silent(*_):
    pass


def red(images, texts):
    """Sees a dog in what is red, a cat in what is not; all else never."""
    level = images[:, 0].mean((1, 2)) - images[:, 1].mean((1, 2))
    return torch.stack([(1 if "dog" in t else -1 if "cat" in t else -9) * level for t in texts], 1)


@pytest.fixture(scope="module")
def dictionary(folder, tmp_path_factory):
    """A file of a small dictionary of the tiny model."""
    model = load(folder)
    how = {"steps": 2, "features": 24, "k": 4, "learning": Learning(updates=20)}
    made = train_dictionary(model, SITE, ["a red cat", "a dog"], seeds=[0, 1], **how)
    path = tmp_path_factory.mktemp("dictionary") / "d.safetensors"
    made.save(path)
    return path


@pytest.fixture(scope="module")
def everything(case, dictionary, tmp_path_factory):
    """An investigation by all four analyses, with a judge."""
    asked = replace(case, prompt="a red cat on a mat", judge=red, analyses=None, dictionary=dictionary)
    path = tmp_path_factory.mktemp("runs") / "all"
    return denoscope.investigate(asked, path, anyway=True, progress=silent)


def test_every_analysis_offers_or_says_why_not(everything):
    table = everything.table
    offered = {t["analysis"] for t in table.told.values()} | {a for a, _ in table.skipped}
    assert {"mediation", "information", "features", "directions"} <= offered
    assert set(everything.changes) == set(table.names) == set(table.told)
    files = {p.name for p in (everything.folder / "changes").iterdir()}
    assert files == {file_name(n) for n in table.names}
    frame = everything.to_frame()
    assert frame["change"].tolist()[:2] == [NOTHING, OUTRIGHT] and not frame["efficacy"].isna().any()


def test_the_table_holds_what_each_change_paints(everything, folder):
    model, data = load(folder), everything.table.data
    for name in everything.table.names:
        with everything.apply(name, model) as changed:
            run = trace(changed, ["a red cat on a mat"], seeds=[0], steps=2)
        pixels = run.images[0].mul(255).round().permute(1, 2, 0)
        assert (
            pixels - torch.from_numpy(data["pictures"].sel(change=name).values[0]).float()
        ).abs().max() <= 1


def test_a_steering_leaves_texts_without_the_word_to_the_bit(everything):
    data = everything.table.data
    others = (data["kind"] == "specificity").values
    for name, told in everything.table.told.items():
        moved = float(data["moved"].sel(change=name).values[others].max())
        if told["where"] == "while it runs":
            assert moved == 0 and told["size"] == 0
    assert any(t["where"] == "while it runs" for t in everything.table.told.values())


def test_a_frozen_change_is_an_edit_of_the_same_place(everything):
    frozen = {n: c for n, c in everything.changes.items() if n.endswith("frozen")}
    assert frozen and all(isinstance(c.act, Edit) and c.where == "unet" for c in frozen.values())
    assert set(frozen) <= set(everything.table.names)


def test_the_best_is_applied_and_exported_as_a_file_or_a_pipeline(everything, tmp_path):
    edits = [n for n, c in everything.changes.items() if c.edit]
    steers = [n for n, c in everything.changes.items() if isinstance(c.act, Steer)]
    file = everything.export(tmp_path / "made" / "one.safetensors", edits[0])
    assert Edit.load(file) == everything.changes[edits[0]].edit
    assert (
        Direction.load(everything.export(tmp_path / "d.safetensors", steers[0])).about["steer"]["word"]
        == "cat"
    )
    there = load(everything.export(tmp_path / "pipeline", edits[0]))
    with everything.apply(edits[0]) as changed:
        first = next(iter(everything.changes[edits[0]].edit.deltas))
        assert torch.equal(changed.parameter(first), there.parameter(first))
    with pytest.raises(ValueError, match="acts while the model runs"):
        everything.export(tmp_path / "no", steers[0])
    with pytest.raises(FileExistsError, match="one.safetensors exists"):
        everything.export(file, edits[0])
    with pytest.raises(LookupError, match="did you mean"), everything.apply(edits[0][:-1]):
        pass


def test_findings_are_the_pages_sentences(everything):
    page = unescape(everything.page.read_text())
    assert everything.findings and all(told.text in page for told in everything.findings)
    shown = everything._repr_html_()
    assert "efficacy" in shown and "<script" not in shown
    assert everything.plot().layout.annotations


def test_a_run_goes_on_with_the_changes_that_are_there(everything, case, dictionary):
    asked = replace(case, prompt="a red cat on a mat", judge=red, analyses=None, dictionary=dictionary)
    worked = set()

    def watch(done, total, what, /):
        if done > 0 and total > 1:
            worked.add(what)

    again = denoscope.investigate(asked, everything.folder, anyway=True, progress=watch)
    assert not worked and again.table.names == everything.table.names


def test_a_change_whose_file_is_damaged_is_made_again(case, tmp_path, caplog):
    denoscope.investigate(case, tmp_path / "run", progress=silent)
    before = Investigation(tmp_path / "run")
    file = next((tmp_path / "run" / "changes").iterdir())
    whole = file.read_bytes()
    file.write_bytes(whole[:-9])
    denoscope.investigate(case, tmp_path / "run", progress=silent)
    assert "The changes are made again" in caplog.text and file.read_bytes() == whole
    assert Investigation(tmp_path / "run").table.names == before.table.names


def test_changes_of_an_older_version_are_told_and_made_again(case, tmp_path, caplog):
    folder = tmp_path / "run"
    run = denoscope.investigate(case, folder, progress=silent)
    about = read_store(folder / "results.zarr" / "changes", STAGE)[1]
    older = run._stage("changes").drop_vars("depth")
    shutil.rmtree(folder / "results.zarr" / "changes")
    save_store(older, folder / "results.zarr" / "changes", about)
    with pytest.raises(ValueError, match="older version, which did not tell depth"):
        _ = Investigation(folder).table
    again = denoscope.investigate(case, folder, progress=silent)
    assert "The changes are made again" in caplog.text and "depth" in again.to_frame()


@pytest.mark.parametrize("made", [tiny_sd3, tiny_flux])
def test_joint_attention_is_edited_and_steered_where_the_picture_reads_the_text(made, case, tmp_path):
    made().save_pretrained(tmp_path)
    setup = prepare(replace(case, model=str(tmp_path), seeds=1))
    ground, cause = Ground(setup, silent), Mediation(denoiser_cause(setup, silent))
    places = by_mediation.reading_sites(cause)
    assert all(p.endswith("joint_attn.out@img") for p in places) and len(set(places)) == len(places)
    edit = by_mediation.in_denoiser(ground, cause)
    blocks = {name.split(".attn.")[0] for name in edit.edit.deltas}
    assert len(blocks) == len(places[:3]) and f"and {len(blocks) - 1} more" in edit.name
    assert {name.split(".attn.")[1] for name in edit.edit.deltas} == {
        "add_k_proj.weight",
        "add_v_proj.weight",
    }
    assert by_directions.sites_of(ground, cause) == places[:3]
    middle = by_directions.sites_of(ground, None)
    assert all(s.endswith("joint_attn.out@img") for s in middle) and len(middle) == len(places[:3])
    steered, frozen = by_directions.at_sites(ground, places[:3])
    assert [str(s) for s in steered.act.direction.sites] == places[:3] and frozen.edit
    how = {"seeds": ground.seeds, **ground.settings}
    last = site_direction(ground.model, places[len(blocks) - 1], *ground.pairs(), **how)
    assert torch.allclose(steered.act.direction.vectors[last.site], last.vector)


def test_every_goal_has_its_page(case, tmp_path):
    goals = {
        "gone": {"change_to": "", "remove": True},
        "steered": {"change_to": "", "steer": "big,small"},
        "even": {"change_to": "", "balance": "big,small"},
    }
    for name, goal in goals.items():
        asked = replace(case, judge=red, analyses=("directions",), seeds=2, **goal)
        found = denoscope.investigate(asked, tmp_path / name, anyway=True, progress=silent)
        page = found.page.read_text()
        assert found.table.goal_said in page and found.to_frame()["efficacy"].notna().all()
        assert ("The check" in page) == (name == "steered")
        assert json.loads((tmp_path / name / "run.json").read_text())["settings"]["analyses"] == [
            "directions"
        ]
    with pytest.raises(FileNotFoundError, match="holds no effect"):
        _ = Investigation(tmp_path / "gone").evaluation


def test_a_change_that_reaches_the_goal_is_found_best(case):
    """Planted: the judge sees a dog where a picture is nearer to those of "a red dog" than of "a red cat"."""
    setup = prepare(case)
    run = {"seeds": setup.seeds, "steps": case.steps, "guidance": setup.guidance}
    known = {w: trace(setup.model, [f"a red {w}"] * 2, **run).images for w in ("cat", "dog")}

    def nearer(images, texts):
        far = {w: (images[:, None] - x[None]).abs().mean((2, 3, 4)).amin(1) for w, x in known.items()}
        own = [next((w for w in known if w in t), None) for t in texts]
        return torch.stack([-far[w] if w else -9 - far["cat"] for w in own], 1)

    setup = replace(setup, judge=nearer, wording=replace(setup.wording, neighbourhood={}))
    d = Direction(SITE, torch.ones(16))
    text = denoscope.analysis.token_direction(
        setup.model, ["a red dog"], ["a red cat"], "dog", negative_subject="cat"
    )
    tried = {"idle": Steer(d, 0.0, "cat"), "text": Steer(text.of("cat"), 1.0, "cat")}
    offered = [Change(n, "directions", "why", act) for n, act in tried.items()]
    found = judged(setup, offered, silent)
    hit = found.data["hit"][:, 0].mean("seed")
    wanted = {NOTHING: 0.0, OUTRIGHT: 1.0, "idle": 0.0, "text": 1.0}
    assert dict(zip(hit["change"].values.tolist(), hit.values.tolist(), strict=True)) == wanted
    told = {c.name: c.told for c in offered}
    assert Changes(found.data, told).best == "text" and found.failed == {}


def test_what_cannot_act_is_told_and_the_others_are_judged(case):
    setup = replace(prepare(case), judge=red)
    odd = Change(
        "odd", "directions", "no", Steer(Direction("unet/mid.attn.0.0/q", torch.ones(3)), 1.0, "cat")
    )
    good = Change("good", "directions", "yes", Steer(Direction(SITE, torch.ones(16)), 1.0, "cat"))
    found = judged(setup, [odd, good], silent)
    assert list(found.failed) == ["odd"] and found.data["change"].values.tolist()[-1] == "good"


def test_of_equals_the_deeper_edit_is_kept_and_then_the_one_that_fits():
    kinds, goal = ["efficacy", "specificity"], SimpleNamespace(kind="change_to")

    def stands(hit, depth, fit):
        seen = {"hit": np.full((2, 3), hit), "depth": np.full((1, 3), depth), "fit": np.full((2, 3), fit)}
        return standing(goal, seen, kinds)

    assert stands(1.0, 0.9, 0.1) > stands(1.0, 0.2, 0.9) > stands(1.0, 0.2, 0.8) > stands(0.5, 1.0, 1.0)
    assert stands(1.0, np.nan, np.nan) == (1.0, 0.0, 0.0)


@pytest.mark.parametrize("kind", ["change_to", "balance"])
@given(seed=st.integers(0, 10_000), unknown=st.booleans())
def test_the_edit_that_is_kept_is_the_one_that_the_page_ranks_first(kind, seed, unknown):
    rng, kinds, names = np.random.default_rng(seed), ["efficacy", "efficacy", "specificity"], list("abcd")
    few = np.array([0.0, 0.5, 1.0])  # so that ties are common
    shapes = {"hit": (3, 1), "fit": (3, 1), "depth": (2, 1)}
    seen = {n: {k: rng.choice(few, size) for k, size in shapes.items()} for n in names}
    for one in seen.values():
        one["hit"] = one["hit"].round()
        one["depth"][0] = np.nan if unknown else one["depth"][0]  # as where both texts are one
    dims = {k: ("change", "asked" if k == "depth" else "prompt", "seed") for k in shapes}
    data = xr.Dataset(
        {k: (d, np.stack([seen[n][k] for n in names])) for k, d in dims.items()},
        {"change": names, "kind": ("prompt", kinds)},
        {"goal": kind, "goal_said": "", "judged": 1},
    )
    data["colour"] = xr.zeros_like(data["hit"])
    best = max(names, key=lambda n: standing(SimpleNamespace(kind=kind), seen[n], kinds))
    assert Changes(data, {}).ranked[0] == best


def test_pushed_features_are_read_with_their_dictionary_alone(dictionary, folder, tmp_path):
    from denoscope.probes import Dictionary

    d = Dictionary.load(dictionary)
    push = Push(d, (1, 2), (2.0, 0.0), "scale", "cat")
    push.save(tmp_path / "p.safetensors")
    again = Push.load(tmp_path / "p.safetensors", d)
    assert (again.features, again.by, again.how, again.word) == ((1, 2), (2.0, 0.0), "scale", "cat")
    other = replace(d, decoder=d.decoder * 1.5)
    with pytest.raises(ValueError, match="another dictionary"):
        Push.load(tmp_path / "p.safetensors", other)


def test_the_edit_that_is_shown_is_the_one_asked_for_or_the_best(case, tmp_path):
    setup = replace(prepare(replace(case, method="uce")), judge=red)
    (tmp_path / "run").mkdir()
    made = make(setup, {}, None, tmp_path / "run", silent)
    assert chosen_edit(made, "uce").note["method"] == "uce"
    best = next(n for n in made.table.ranked if made.changes[n].edit is not None)
    assert chosen_edit(made, None) is made.changes[best].edit
    assert read(made.data, tmp_path / "run", None).changes.keys() == made.changes.keys()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"analyses": ["mediations"]}, LookupError, "did you mean 'mediation'"),
        ({"analyses": []}, ValueError, "give some of mediation, information, features, directions"),
        ({"analyses": ["features"]}, ValueError, "denoscope features train"),
        ({"analyses": ["mediation"], "dictionary": "d"}, ValueError, "not among the analyses"),
        ({"remove": True}, ValueError, "one goal"),
    ],
)
def test_what_cannot_be_looked_for_is_told_before_any_work(change, error, message, case, tmp_path):
    with pytest.raises(error, match=message):
        denoscope.investigate(replace(case, **change), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_change_is_refused_on_other_weights(everything, folder):
    other = load(folder)
    edit = next(c.edit for c in everything.changes.values() if c.edit)
    steering = next(n for n, c in everything.changes.items() if isinstance(c.act, Steer))
    with (
        edit.applied(other),
        pytest.raises(ValueError, match="other weights"),
        everything.apply(steering, other),
    ):
        pass


def test_a_method_that_could_not_be_made_is_told(case, tmp_path, caplog):
    asked = replace(case, method="nullspace", seeds=1, steps=1)
    denoscope.investigate(asked, tmp_path / "run", progress=silent)
    assert "no edit by nullspace could be made" in caplog.text and "no change is left" in caplog.text
