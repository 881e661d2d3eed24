"""ReFACT: the identities of the paper, what the search promises, and clear refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig
from torch import Tensor, nn

import denoscope
from denoscope import Intervention, intervening
from denoscope.editing.covariance import second_moment, smoothed
from denoscope.editing.lookup import lookups
from denoscope.editing.lowrank import dense
from denoscope.editing.methods.refact import met, refact
from denoscope.editing.requests import prompt_pairs
from denoscope.editing.values import PAPER, Search, find_values
from denoscope.models.site import Site
from denoscope.models.synthetic.tiny import tiny_ddim, tiny_sd
from denoscope.probes.text_states import layer_inputs
from tests.models.families.test_families import opened

SITE = "text_encoder/layer.0/mlp.out"
CAPTIONS = [
    f"{a} {b} {c}" for a in ("a", "the") for b in ("red", "blue", "big") for c in ("cat", "dog", "cook")
]
QUICK: dict[str, Any] = {"captions": CAPTIONS, "templates": ["{}", "a {}"]}


def outputs(model: Any, text: str) -> Tensor:
    seen: list[Tensor] = []
    with torch.no_grad(), intervening(model, Intervention(Site(SITE), lambda x, _: seen.append(x.clone()))):
        model.encode([text])
    return seen[0][0]


@pytest.fixture(scope="module")
def model() -> Any:
    return denoscope.load(tiny_sd())


# the closed form ------------------------------------------------------------------------------------------


def system(n: int, d: int = 12, out: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(n)
    keys, changes, more = (
        torch.randn(*s, generator=rng, dtype=torch.float64) for s in ((n, d), (n, out), (4 * d, d))
    )
    return keys, changes, more.T @ more


@pytest.mark.parametrize("n", [1, 3, 12])
def test_every_key_is_met_and_orthogonal_ones_are_untouched(n: int) -> None:
    keys, changes, moment = system(n)
    delta = dense(met(keys, changes, moment))
    torch.testing.assert_close(keys @ delta.T, changes)
    free = torch.linalg.svd(torch.linalg.solve(moment, keys.T).T).Vh[n:]  # kᵀ C⁻¹ x = 0
    assert len(free) == 12 - n and float((free @ delta.T).abs().sum()) < 1e-9


def test_one_key_gives_romes_formula() -> None:
    keys, changes, moment = system(1)
    u = torch.linalg.solve(moment, keys[0])
    u = u / u.norm()
    torch.testing.assert_close(dense(met(keys, changes, moment)), torch.outer(changes[0], u) / (keys[0] @ u))


def test_of_all_that_meet_the_keys_it_changes_captions_least() -> None:
    keys, changes, moment = system(2)
    best = dense(met(keys, changes, moment))
    other = dense(met(keys, changes, torch.eye(12, dtype=torch.float64)))
    cost = [float((d @ moment * d).sum()) for d in (best, other)]
    assert cost[0] < 0.95 * cost[1]


def test_more_keys_than_inputs_and_a_singular_moment_are_refused() -> None:
    keys, changes, moment = system(13)
    with pytest.raises(ValueError, match="13 values cannot all be met by a layer of 12 inputs"):
        met(keys, changes, moment)
    with pytest.raises(ValueError, match="second moment is singular; give more captions"):
        met(keys[:1], changes[:1], torch.zeros(12, 12, dtype=torch.float64))


# on a model -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [None, "paper"])
def test_the_edited_layer_gives_the_value_that_was_found(model: Any, settings: Any) -> None:
    """W' k = v*, where k is what the layer reads of the word: on the model, not on paper."""
    edit = refact(model, {"cat": "dog"}, site=SITE, settings=settings, captions=CAPTIONS, templates=["a {}"])
    search = PAPER if settings else Search()
    batches = lookups(model, "text_encoder", 0, prompt_pairs({"cat": "dog"}, ["a {}"]), search.tokens)
    wanted = find_values(model, Site(SITE), batches, search)[0]
    before = outputs(model, "a cat")[2]
    with edit.applied(model):
        after = outputs(model, "a cat")[2]
    torch.testing.assert_close(
        (after - before).double(), wanted, rtol=0, atol=1e-4 * float(wanted.abs().max())
    )
    assert wanted.norm() > 0.01 and torch.equal(outputs(model, "a cat")[2], before)


def test_the_word_is_read_as_the_target(model: Any) -> None:
    def left(edit: Any) -> float:
        with torch.no_grad():
            was, want = (p.embeds for p in model.encode(["a cat", "a dog"]))
            with edit.applied(model):
                now = model.encode(["a cat"])[0].embeds
        return float((now - want)[2:].norm() / (was - want)[2:].norm())

    ours = refact(model, {"cat": "dog"}, site=SITE, captions=CAPTIONS, templates=["a {}"])
    paper = refact(model, {"cat": "dog"}, site=SITE, captions=CAPTIONS, templates=["a {}"], settings="paper")
    assert left(ours) < 0.9
    assert ours.to_frame()["rank"].iloc[0] == 3 and paper.to_frame()["rank"].iloc[0] == 1


def test_requests_are_met_together_in_any_order(model: Any) -> None:
    asked = {"cat": "dog", "cook": "bird", "red": "blue"}
    one = refact(model, asked, site=SITE, settings="paper", **QUICK)
    turned = refact(model, dict(reversed(asked.items())), site=SITE, settings="paper", **QUICK)
    (a,), (b,) = (map(dense, e.deltas.values()) for e in (one, turned))
    torch.testing.assert_close(a, b, rtol=0, atol=1e-4 * float(a.abs().max()))


def test_a_request_beside_others_finds_the_value_that_it_finds_alone(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"cat": "dog", "cook": "bird", "red": "blue"}
    pairs = prompt_pairs(asked, ["{}", "a {}"])
    whole = find_values(model, Site(SITE), lookups(model, "text_encoder", 0, pairs, "subject"), PAPER)
    monkeypatch.setattr("denoscope.editing.lookup.TEXT_BATCH", 2)
    split = lookups(model, "text_encoder", 0, pairs, "subject")
    assert len(split) == 3
    torch.testing.assert_close(find_values(model, Site(SITE), split, PAPER), whole, rtol=0, atol=1e-3)
    assert whole.norm(dim=1).min() > 0.05


def test_the_same_call_gives_the_same_edit(model: Any) -> None:
    made = [refact(model, {"cat": "dog"}, site=SITE, settings="paper", **QUICK) for _ in range(2)]
    assert made[0] == made[1] and made[0].to_frame()["norm"].iloc[0] > 0.01
    deep = refact(model, {"cat": "dog"}, settings="paper", **QUICK)
    assert deep.note["site"] == "text_encoder/layer.1/mlp.out"


@pytest.mark.parametrize("settings", [None, "paper"])
def test_editing_a_word_to_itself_changes_nothing(model: Any, settings: Any) -> None:
    assert refact(model, {"cat": "cat"}, settings=settings, **QUICK).to_frame()["norm"].iloc[0] < 1e-9


def test_values_stay_in_the_ball_and_stop_where_they_are_sure(model: Any) -> None:
    batches = lookups(model, "text_encoder", 0, prompt_pairs({"cat": "dog"}, ["a {}"]), "subject")
    small = Search("contrast", "subject", ball=0.1)
    length = batches[0].clean(model, Site(SITE)).norm()
    assert float(find_values(model, Site(SITE), batches, small).norm()) <= 0.1 * float(length) * (1 + 1e-6)
    sure = Search("states", "subject", stop=1e-6)  # sure as soon as anything is gained
    early, late = (find_values(model, Site(SITE), batches, s) for s in (sure, Search("states", "subject")))
    torch.testing.assert_close(
        early.abs(), torch.full_like(early, 0.2), rtol=0, atol=1e-4
    )  # one step of Adam
    assert float(late.norm()) > float(early.norm())


def test_the_loss_of_the_paper_written_out(model: Any) -> None:
    """-log softmax over target, source and other texts of minus the distance."""
    (lookup,) = lookups(model, "text_encoder", 0, prompt_pairs({"cat": "dog"}, ["a {}"]), "subject")
    with torch.no_grad():
        cat, dog, bird = (p.embeds[p.end] for p in model.encode(["a cat", "a dog", "a blue bird"]))
        got = lookup.distance(lookup.contrasts(model, ["a blue bird"]))
    apart = torch.stack([(cat - x).norm() for x in (dog, cat, bird)])
    assert float(got) == pytest.approx(-float((-apart).log_softmax(0)[0]), rel=1e-4)


def test_the_second_moment_is_the_sum_written_out(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    states = layer_inputs(model, CAPTIONS, SITE)
    every = torch.cat([s.values for s in states.values()]).double()
    read = torch.cat([s.values[: s.words.end + 1] for s in states.values()]).double()
    monkeypatch.setattr("denoscope.editing.covariance.TEXT_BATCH", 5)
    got = second_moment(model, SITE, [*CAPTIONS, CAPTIONS[0]])
    torch.testing.assert_close(got, every.T @ every / len(every), rtol=1e-5, atol=1e-8)
    got = second_moment(model, SITE, CAPTIONS, padding=False)
    torch.testing.assert_close(got, read.T @ read / len(read), rtol=1e-5, atol=1e-8)
    assert torch.equal(smoothed(got, 0.0), got)


def test_kept_texts_are_held(model: Any) -> None:
    was, moved = outputs(model, "the big cook"), []
    for keep in ((), ("the big cook",)):
        with refact(model, {"cat": "dog"}, site=SITE, keep=keep, **QUICK).applied(model):
            moved.append(float((outputs(model, "the big cook") - was).norm()))
    assert moved[1] < 0.8 * moved[0]


def test_nothing_is_left_on_the_model(model: Any) -> None:
    encoder = model.components["text_encoder"]
    before = {n: p.detach().clone() for n, p in encoder.named_parameters()}
    with torch.no_grad():
        refact(model, {"cat": "dog"}, settings="paper", **QUICK)

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        refact(model, {"cat": "dog"}, progress=stop, **QUICK)
    assert all(torch.equal(before[n], p) and p.grad is None for n, p in encoder.named_parameters())
    own = [m for m in encoder.modules() if any("denoscope" in str(h) for h in m._forward_hooks.values())]
    assert not own and not any(m._forward_pre_hooks for m in encoder.modules())


@pytest.mark.filterwarnings("ignore")
def test_loras_and_quantised_layers_are_refused() -> None:
    pipe = tiny_sd()
    pipe.text_encoder.add_adapter(LoraConfig(r=2, target_modules=["fc2"]))
    with pytest.raises(ValueError, match="carries a LoRA beside its weight; merge it first"):
        refact(denoscope.load(pipe), {"cat": "dog"}, **QUICK)

    class Packed(nn.Linear):
        """A layer of somebody's quantisation."""

    Packed.__module__ = "torch.ao.nn.quantized"
    pipe = tiny_sd()
    mlp = denoscope.load(pipe).module("text_encoder/layer.0/mlp.out")
    mlp.__class__ = Packed
    with pytest.raises(ValueError, match="is quantised"):
        refact(denoscope.load(pipe), {"cat": "dog"}, **QUICK)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"requests": {}}, ValueError, "requests is {}; write"),
        ({"requests": {"cat": "dog", "Cat": "bird"}}, ValueError, "'Cat' is asked to mean 'dog' and 'bird'"),
        ({"requests": {"cat": "dog", "Cat": "dog"}}, ValueError, "reads the requests 'cat' and 'Cat' alike"),
        ({"requests": {"猫": "dog"}}, LookupError, "text_encoder: the tokenizer does not know"),
        ({"templates": ["a cat"]}, ValueError, "'a cat' needs exactly one {}"),
        ({"templates": ["a red " * 16 + "{}"]}, ValueError, "35 tokens, .* reads 32"),
        ({"captions": []}, ValueError, "captions is empty"),
        ({"captions": None}, ValueError, r"read where none are given are too long .* captions=\[...\]"),
        ({"captions": ["cat " * 50]}, ValueError, "reads 32"),
        ({"site": "text_encoder/layer.9/mlp.out"}, LookupError, "no site"),
        ({"site": "text_encoder/layer.0/self_attn.out"}, ValueError, r"refact .*mlp.out'\)$"),
        ({"site": [SITE, "text_encoder/layer.1/mlp.out"]}, ValueError, "one layer for each text encoder"),
        ({"settings": "papers"}, ValueError, "settings is 'papers'; it is None, 'paper' or"),
        ({"smooth": -1.0}, ValueError, "smooth is -1.0"),
    ],
)
def test_bad_input_is_named(
    tiny: Any, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        refact(tiny, **{"requests": {"cat": "dog"}, **QUICK, **arguments})


@pytest.mark.parametrize(
    "given", [{"steps": 0}, {"rate": 0.0}, {"stop": 1.5}, {"ball": -1.0}, {"decay": float("nan")}]
)
def test_settings_that_make_no_sense_are_refused(given: dict[str, Any]) -> None:
    (name,) = given
    with pytest.raises(ValueError, match=f"{name} is .*; the default is"):
        Search(**given)


def test_models_and_layers_that_are_not_read_are_refused() -> None:
    with pytest.raises(LookupError, match="has no text encoder"):
        refact(denoscope.load(tiny_ddim()), {"cat": "dog"})
    with pytest.raises(ValueError, match="does not read what text_encoder/layer.1/mlp.out does"):
        refact(opened("sdxl"), {"cat": "dog"}, site="text_encoder/layer.1/mlp.out", **QUICK)


@pytest.mark.parametrize("name", ["sdxl", "sd3", "pixart-alpha", "sana"])
def test_every_text_encoder_is_edited(name: str) -> None:
    model = opened(name)
    edit = refact(model, {"cat": "dog"}, captions=CAPTIONS[:6], templates=["a {}"], settings=Search(steps=3))
    assert len(edit.deltas) == len(model.text_encoders) and edit.note["unedited"] == []
    assert (edit.to_frame()["norm"] > 1e-6).all()
