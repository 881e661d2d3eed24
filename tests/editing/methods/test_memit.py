"""MEMIT: the closed form, what is spread over layers, and clear refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import denoscope
from denoscope.editing.covariance import second_moment
from denoscope.editing.lookup import lookups
from denoscope.editing.lowrank import dense
from denoscope.editing.methods.memit import memit
from denoscope.editing.methods.refact import met, refact
from denoscope.editing.requests import prompt_pairs
from denoscope.editing.values import PAPER, Search, find_values
from denoscope.models.judges import load_judge
from denoscope.models.site import Site
from denoscope.models.synthetic.tiny import tiny_ddim, tiny_sd
from tests.models.families.test_families import opened

SITE, UPPER = (f"text_encoder/layer.{i}/mlp.out" for i in range(2))
CAPTIONS = [
    f"{a} {b} {c}" for a in ("a", "the") for b in ("red", "blue", "big") for c in ("cat", "dog", "cook")
]
QUICK: dict[str, Any] = {"captions": CAPTIONS, "templates": ["a {}"], "settings": Search("states", "subject")}


@pytest.fixture(scope="module")
def model() -> Any:
    return denoscope.load(tiny_sd())


def only(edit: Any) -> Tensor:
    (delta,) = edit.deltas.values()
    return dense(delta)


def wanted(model: Any, site: str = SITE, requests: Any = None) -> tuple[Tensor, Tensor]:
    """Key and value of each request, one wording and one token each."""
    layer = int(site.split("/")[1].removeprefix("layer."))
    pairs = prompt_pairs(requests or {"cat": "dog"}, ["a {}"])
    (batch,) = lookups(model, "text_encoder", layer, pairs, "subject")
    values = find_values(model, Site(site), [batch], QUICK["settings"])
    return batch.clean(model, Site(site.replace("out", "act"))), values


def test_one_layer_is_the_papers_formula_written_out(model: Any) -> None:
    asked = {"cat": "dog", "cook": "bird"}
    keys, values = wanted(model, requests=asked)
    moment = 3.0 * second_moment(model, SITE, CAPTIONS)
    want = values.T @ keys @ torch.linalg.inv(moment + keys.T @ keys)
    got = only(memit(model, asked, weight=3.0, keep=(), smooth=0.0, **QUICK))
    torch.testing.assert_close(got, want, rtol=0, atol=1e-3 * float(want.abs().max()))


def test_one_request_with_little_weight_tends_to_the_rank_one_edit(model: Any) -> None:
    keys, values = wanted(model)
    moment = second_moment(model, SITE, CAPTIONS)
    best = dense(met(keys, values, moment))
    apart = [
        float(
            (only(memit(model, {"cat": "dog"}, weight=w, keep=(), smooth=0.0, **QUICK)) - best).norm()
            / best.norm()
        )
        for w in (1.0, 1e-3)
    ]
    assert apart[1] < 0.01 and apart[1] < 0.1 * apart[0]


def test_several_layers_bring_the_value_to_the_last(model: Any) -> None:
    """Each gives its share, and the last one what is then missing."""
    _, values = wanted(model, UPPER)
    (batch,) = lookups(model, "text_encoder", 0, prompt_pairs({"cat": "dog"}, ["a {}"]), "subject")
    end = Site("text_encoder/layer.1/resid.post")
    before = batch.clean(model, end)
    both = memit(model, {"cat": "dog"}, site=[UPPER, SITE], weight=1e-6, keep=(), **QUICK)
    assert [name.split(".")[3] for name in both.deltas] == ["0", "1"]
    with both.applied(model):
        (batch,) = lookups(model, "text_encoder", 0, prompt_pairs({"cat": "dog"}, ["a {}"]), "subject")
        came = batch.clean(model, end) - before
    torch.testing.assert_close(came, values, rtol=0, atol=0.01 * float(values.abs().max()))
    alone = memit(model, {"cat": "dog"}, site=UPPER, weight=1e-6, keep=(), **QUICK)
    last = dense(both.deltas[next(iter(alone.deltas))])
    assert 0 < float(last.norm()) < 0.95 * float(only(alone).norm())


def test_requests_are_solved_together_in_any_order(model: Any) -> None:
    asked = {"cat": "dog", "cook": "bird", "red": "blue"}
    sites = [SITE, UPPER]
    one, turned = (
        memit(model, a, site=sites, weight=1.0, **QUICK) for a in (asked, dict(reversed(asked.items())))
    )
    for name in one.deltas:
        a, b = dense(one.deltas[name]), dense(turned.deltas[name])
        torch.testing.assert_close(a, b, rtol=0, atol=1e-3 * float(a.abs().max()))


def test_the_same_call_gives_the_same_edit_and_more_weight_a_smaller_one(model: Any) -> None:
    made = [memit(model, {"cat": "dog"}, **QUICK) for _ in range(2)]
    assert made[0] == made[1] and made[0].note["weight"] == {SITE: 1.0}
    held = memit(model, {"cat": "dog"}, captions=CAPTIONS, templates=["a {}"], settings="paper")
    assert held.note["weight"][SITE] == 15000 and held.note["search"]["steps"] == PAPER.steps == 100
    norms = [float(only(memit(model, {"cat": "dog"}, weight=w, **QUICK)).norm()) for w in (0.1, 10.0, 1e6)]
    assert norms[0] > norms[1] > 100 * norms[2]


def test_editing_a_word_to_itself_changes_nothing(model: Any) -> None:
    assert float(only(memit(model, {"cat": "cat"}, **QUICK)).norm()) < 1e-9


def test_weights_are_not_touched_and_come_back(model: Any) -> None:
    encoder = model.components["text_encoder"]
    before = {n: p.detach().clone() for n, p in encoder.named_parameters()}
    versions = {n: p._version for n, p in encoder.named_parameters()}
    edit = memit(model, {"cat": "dog"}, site=[SITE, UPPER], **QUICK)
    assert versions == {n: p._version for n, p in encoder.named_parameters()}
    with edit.applied(model):
        assert not torch.equal(model.module(SITE).weight, before["encoder.layers.0.mlp.fc2.weight"])
    assert all(torch.equal(before[n], p) for n, p in encoder.named_parameters())


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"requests": {" ": "cat"}}, ValueError, "says nothing"),
        ({"requests": {"cat": "dog", "Cat": "dog"}}, ValueError, "reads the requests 'cat' and 'Cat' alike"),
        ({"requests": {"猫": "dog"}}, LookupError, "the tokenizer does not know"),
        ({"templates": ["a red " * 16 + "{}"]}, ValueError, "35 tokens, .* reads 32"),
        ({"site": []}, ValueError, "name one layer"),
        ({"site": [SITE, "text_encoder/layer.9/mlp.out"]}, LookupError, "no site"),
        ({"site": [SITE, "text_encoder/layer.0/self_attn.out"]}, ValueError, "memit changes a linear layer"),
        ({"weight": 0.0}, ValueError, "weight is 0.0; it is a number above 0"),
        ({"settings": "ours"}, ValueError, "settings is 'ours'"),
        ({"captions": None}, ValueError, r"read where none are given are too long .* captions=\[...\]"),
    ],
)
def test_bad_input_is_named(
    tiny: Any, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        memit(tiny, **{"requests": {"cat": "dog"}, **QUICK, **arguments})


def test_models_and_layers_that_cannot_be_edited_are_refused() -> None:
    with pytest.raises(LookupError, match="has no text encoder"):
        memit(denoscope.load(tiny_ddim()), {"cat": "dog"})
    with pytest.raises(ValueError, match="does not read what text_encoder/layer.1/mlp.out does"):
        memit(opened("sdxl"), {"cat": "dog"}, site=[SITE, UPPER], **QUICK)
    with pytest.raises(ValueError, match="is read through a norm, .* use refact"):
        memit(opened("sana"), {"cat": "dog"}, **QUICK)


def test_two_encoders_and_t5_are_edited() -> None:
    for name in ("sdxl", "pixart-alpha"):
        edit = memit(opened(name), {"cat": "dog"}, **{**QUICK, "settings": Search(steps=3)})
        assert len(edit.deltas) == len(opened(name).text_encoders)


@pytest.mark.parametrize("method", [refact, pytest.param(memit, marks=pytest.mark.stress)])
def test_on_the_real_model_a_firefighter_becomes_a_cook(emoji: Any, method: Any) -> None:
    """In pictures of a wording that was not edited; a neighbour stays what it is."""
    judge, edit = load_judge("emoji"), method(emoji, {"firefighter": "cook"})

    def nearer(said: str, meant: str) -> float:
        run = denoscope.trace(emoji, [f"a twemoji emoji of a {said}"] * 2, seeds=[0, 1], steps=6)
        fit = judge.similarity(run.images, [f"a twemoji emoji of a {word}" for word in (said, meant)])
        return float((fit[:, 1] - fit[:, 0]).mean())

    before = nearer("firefighter", "cook"), nearer("penguin", "cook")
    with edit.applied(emoji):
        after = nearer("firefighter", "cook"), nearer("penguin", "cook")
    assert before[0] < -0.3 and after[0] > 0.05
    assert before[1] < -0.3 and after[1] < -0.3
