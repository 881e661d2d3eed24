"""Diff-QuickFix: the planted truth, the rows of the paper, and clear refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig
from torch import Tensor

import denoscope
from denoscope import Edit, Intervention, intervening
from denoscope.editing.lowrank import dense
from denoscope.editing.methods.quickfix import TEMPLATES, quickfix
from denoscope.editing.requests import prompt_pairs, rows, texts_of
from denoscope.models.synthetic.tiny import tiny_sd
from denoscope.models.synthetic.tiny_families import tiny_flux
from denoscope.probes.text_states import layer_inputs
from tests.models.families.test_families import READING, opened

SITE = "text_encoder/layer.0/self_attn.out"
# few rows: they can be met exactly
SMALL: dict[str, Any] = {"templates": ("a {}",), "tokens": "subject", "ridge": 1e-10, "keep": ()}


def outputs(model: Any, text: str, site: str = SITE) -> Tensor:
    seen: list[Tensor] = []
    with torch.no_grad(), intervening(model, Intervention(site, lambda x, _: seen.append(x.clone()))):
        model.encode([text])
    return seen[0][0]


@pytest.fixture
def model() -> Any:
    """A tiny model whose biases are not zero, so that they count."""
    model = denoscope.load(tiny_sd())
    with torch.no_grad():
        for name, p in model.components["text_encoder"].named_parameters():
            if name.endswith("bias"):
                p.normal_(generator=torch.Generator().manual_seed(len(name)))
    return model


@pytest.mark.parametrize("site", [SITE, "text_encoder/layer.1/self_attn.out", "text_encoder/layer.1/mlp.out"])
def test_the_source_is_read_as_the_target(model: Any, site: str) -> None:
    want, was = outputs(model, "a dog", site)[2], outputs(model, "a cat", site)[2]
    with quickfix(model, {"cat": "dog"}, site=site, **SMALL).applied(model):
        got = outputs(model, "a cat", site)[2]
    assert (got - want).abs().max() < 1e-3 * (was - want).abs().max()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_models_are_edited_as_well_as_they_can_hold(dtype: torch.dtype) -> None:
    pipe = tiny_sd()
    pipe.to(dtype)
    model = denoscope.load(pipe)
    want, was = outputs(model, "a dog")[2], outputs(model, "a cat")[2]
    with quickfix(model, {"cat": "dog"}, **{**SMALL, "ridge": 1e-6}).applied(model):
        got = outputs(model, "a cat")[2]
    assert got.dtype == dtype
    assert (got - want).abs().max() < 8 * torch.finfo(dtype).eps * (1 + want.abs().max())
    assert (was - want).abs().max() > 2 * (got - want).abs().max()


def test_the_references_bias_is_off_by_one_bias(model: Any) -> None:
    bias = model.module(SITE).bias.detach()
    want = outputs(model, "a dog")[2]
    with quickfix(model, {"cat": "dog"}, bias="reference", **SMALL).applied(model):
        got = outputs(model, "a cat")[2]
    torch.testing.assert_close(got, want + bias, rtol=0, atol=1e-5)
    assert bias.abs().max() > 0.1


def test_the_end_and_padding_are_read_as_the_targets_too(model: Any) -> None:
    """One wording gives 30 rows, and 16 inputs cannot meet them all, but come near."""
    want, was = outputs(model, "a dog"), outputs(model, "a cat")
    with quickfix(model, {"cat": "dog"}, templates=("a {}",), ridge=1e-8, keep=()).applied(model):
        got = outputs(model, "a cat")
    error, before = (got - want)[2:].norm(), (was - want)[2:].norm()
    assert error < 0.1 * before
    with quickfix(model, {"cat": "dog"}, **{**SMALL, "ridge": 1e-8}).applied(model):
        only_word = (outputs(model, "a cat") - want)[2:].norm()
    assert only_word > 2 * error


def test_equals_the_papers_formula_written_out(model: Any) -> None:
    """W = (λ W0 + Σ v kᵀ)(λ I + Σ k kᵀ)⁻¹, four wordings, from the last token of the word to the end."""
    layer, ridge = model.module(SITE), 0.01
    weight, bias = layer.weight.detach().double(), layer.bias.detach().double()
    ks, vs = [], []
    for template in TEMPLATES:
        a, b = template.format("red"), template.format("elk")  # one token, and three
        start = {t: len(model.pipe.tokenizer(t).input_ids) - 2 for t in (a, b)}
        k = torch.linalg.solve(weight, (outputs(model, a).double() - bias).T).T[
            start[a] :
        ]  # the input, from the output
        v = outputs(model, b).double()[start[b] :] - bias
        ks.append(k)
        vs.append(torch.cat([v, v[-1:].expand(max(len(k) - len(v), 0), -1)])[: len(k)])
    k, v = torch.cat(ks), torch.cat(vs)
    eye = torch.eye(16, dtype=torch.float64)
    want = (ridge * weight + v.T @ k) @ torch.linalg.inv(ridge * eye + k.T @ k)
    edit = quickfix(model, {"red": "elk"}, ridge=ridge, keep=())
    (got,) = (dense(d) for d in edit.deltas.values())
    assert len(model.encode(["elk"])[0].find("elk")) > 1
    torch.testing.assert_close(weight + got, want, rtol=0, atol=1e-3 * float(got.abs().max()))


def test_editing_a_word_to_itself_changes_nothing(model: Any) -> None:
    assert quickfix(model, {"cat": "cat"}).to_frame()["norm"].iloc[0] < 1e-9


def test_requests_are_solved_together_in_any_order(model: Any) -> None:
    both = quickfix(model, {"cat": "dog", "cook": "red"}, **SMALL)
    turned = quickfix(model, {"cook": "red", "cat": "dog"}, **SMALL)
    name = next(iter(both.deltas))
    torch.testing.assert_close(dense(both.deltas[name]), dense(turned.deltas[name]))
    wants = {"a cat": outputs(model, "a dog")[2], "a cook": outputs(model, "a red")[2]}
    with both.applied(model):
        for text, want in wants.items():
            torch.testing.assert_close(outputs(model, text)[2], want, rtol=0, atol=1e-5)


def test_a_hundred_requests_in_one_solve(model: Any) -> None:
    words = [f"{a}{b}" for a in "bcdfghklmn" for b in "aeiouvwxyz"]
    edit = quickfix(model, dict.fromkeys(words, "dog"))
    assert len(edit.note["requests"]) == 100 and edit.size() == 256


def test_the_default_ridge_goes_with_the_scale_of_the_keys_and_the_requests(model: Any) -> None:
    one, two = quickfix(model, {"cat": "dog"}), quickfix(model, {"cat": "dog", "dog": "cat"})
    pairs = prompt_pairs({"cat": "dog"})
    keys, _ = rows(layer_inputs(model, texts_of(pairs), SITE), pairs, "subject+end")
    assert one.note["ridge"][SITE] == pytest.approx(float((keys.norm(dim=1) ** 2).mean()))
    with torch.no_grad():
        for p in model.weights("text_encoder/layer.0/self_attn.v_proj").values():
            p.mul_(3)  # keys are three times as long
    louder = quickfix(model, {"cat": "dog"})
    assert louder.note["ridge"][SITE] == pytest.approx(9 * one.note["ridge"][SITE])
    assert two.note["ridge"][SITE] / one.note["ridge"][SITE] == pytest.approx(2, rel=0.1)
    (a,), (b,) = (e.deltas.values() for e in (one, louder))
    torch.testing.assert_close(dense(a), dense(b), rtol=0, atol=1e-5)  # and the edit is the same
    for given, usual in (({}, louder.note["ridge"][SITE]), ({"ridge": 0.5}, 0.5)):
        scaled = quickfix(model, {"cat": "dog"}, ridge_scale=0.1, **given)
        assert scaled.note["ridge"][SITE] == pytest.approx(usual / 10)


def test_kept_texts_are_held(model: Any) -> None:
    kept = outputs(model, "a red emoji")
    loose, held = (
        quickfix(model, {"cat": "dog"}, ridge=0.01, keep=k, templates=("a {}",))
        for k in ((), ("a red emoji",))
    )
    moved = []
    for edit in (loose, held):
        with edit.applied(model):
            moved.append(float((outputs(model, "a red emoji") - kept).norm()))
    assert moved[1] < 0.7 * moved[0]


def test_the_empty_text_is_held_unless_nothing_is(emoji: Any) -> None:
    def embeds() -> Tensor:
        with torch.no_grad():
            return emoji.encode([""])[0].embeds

    before, moved = embeds(), []
    for keep in ({}, {"keep": ()}):
        edit = quickfix(emoji, {"red heart": "blue heart"}, **keep)
        with edit.applied(emoji):
            moved.append(float((embeds() - before).norm() / before.norm()))
    assert moved[0] < 0.06 and moved[1] > 0.15
    assert quickfix(emoji, {"cat": "dog"}).note["keep"] == [""]


def test_the_model_is_left_alone_and_the_edit_says_where_it_comes_from(model: Any) -> None:
    before = model.module(SITE).weight.detach().clone()
    edit = quickfix(model, {"cat": "dog"}, ridge=0.5)
    assert torch.equal(model.module(SITE).weight, before)
    assert list(edit.deltas) == ["text_encoder.encoder.layers.0.self_attn.out_proj.weight"]
    note = edit.note
    assert (note["method"], note["requests"], note["site"], note["ridge"]) == (
        "quickfix",
        {"cat": "dog"},
        SITE,
        {SITE: 0.5},
    )
    assert (note["reaches"], note["unedited"]) == ({SITE: ["tokens"]}, [])
    assert {"torch", "denoscope"} <= set(note["versions"])
    held = quickfix(model, {"cat": "dog"}, keep=["a red emoji"], tokens="subject", templates=["a {}"]).note
    assert (held["keep"], held["tokens"], held["bias"]) == (["a red emoji"], "subject", "subtract")
    assert held["templates"] == ["a {}"]


@pytest.mark.filterwarnings("ignore")
def test_a_layer_with_a_lora_is_refused() -> None:
    pipe = tiny_sd()
    pipe.text_encoder.add_adapter(LoraConfig(r=2, target_modules=["out_proj"]))
    with pytest.raises(ValueError, match="carries a LoRA beside its weight; merge it first"):
        quickfix(denoscope.load(pipe), {"cat": "dog"})


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"requests": {}}, ValueError, "requests is {}; write"),
        ({"requests": ["cat"]}, TypeError, "requests is"),
        ({"requests": {" ": "cat"}}, ValueError, "says nothing"),
        ({"templates": "a {}"}, TypeError, "give a list"),
        ({"templates": ["a cat"]}, ValueError, "'a cat' needs exactly one {}"),
        ({"tokens": "all"}, ValueError, "tokens is 'all'; it is 'subject' or"),
        ({"bias": "none"}, ValueError, "bias is 'none'"),
        ({"ridge": -1}, ValueError, "ridge is -1"),
        ({"keep": "a tree"}, TypeError, "keep is the single string 'a tree'"),
        ({"ridge_scale": 0}, ValueError, "ridge_scale is 0; it is a number above 0"),
        ({"ridge_scale": float("nan")}, ValueError, "ridge_scale is nan"),
        ({"site": "text_encoder/layer.9/mlp.out"}, LookupError, "no site"),
        (
            {"site": "text_encoder/layer.0/resid.post"},
            ValueError,
            r"'text_encoder/layer.0/resid.post' is CLIPEncoderLayer",
        ),
        ({"site": "text_encoder/layer.0/self_attn.z"}, ValueError, "Choose one of model.sites"),
        (
            {"site": "unet/mid.attn.0.0/cross_attn.out"},
            ValueError,
            "changes a linear layer of a text encoder",
        ),
        ({"site": "unet/mid.attn.0.0/mlp.out"}, ValueError, "changes a linear layer of a text encoder"),
        ({"site": "text_encoder/layer.0/self_attn.q_proj"}, ValueError, "q_proj' is Linear. Choose one of"),
        ({"templates": ["a red " * 16 + "{}"]}, ValueError, "35 tokens, .* reads 32"),
    ],
)
def test_bad_input_is_named(
    tiny: Any, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        quickfix(tiny, **{"requests": {"cat": "dog"}, **arguments})


def test_unconditional_models_have_nothing_to_edit() -> None:
    from denoscope.models.synthetic.tiny import tiny_ddim

    with pytest.raises(LookupError, match="DDIMPipeline has no text encoder, so no word"):
        quickfix(denoscope.load(tiny_ddim()), {"cat": "dog"})


def test_on_the_real_model_a_firefighter_becomes_a_cook(emoji: Any) -> None:
    """The prompt's text, as the denoiser reads it, moves nearly all the way to the target's."""

    def embeds(text: str) -> Tensor:
        with torch.no_grad():
            return emoji.encode([text])[0].embeds

    edited, target, other = (f"a noto emoji of a woman {w}" for w in ("firefighter", "cook", "farmer"))
    before, want, neighbour = embeds(edited), embeds(target), embeds(other)
    edit = quickfix(emoji, {"firefighter": "cook"})
    assert isinstance(edit, Edit)
    with edit.applied(emoji):
        after, moved = embeds(edited), embeds(other)
    assert (after - want).norm() < 0.5 * (before - want).norm()
    assert (moved - neighbour).norm() < (after - before).norm()


@pytest.mark.parametrize("kind", ["self_attn.out", "mlp.out"])
@pytest.mark.parametrize(("name", "encoder"), READING)
def test_on_every_text_encoder_of_every_family(name: str, encoder: str, kind: str) -> None:
    """With one row and hardly any ridge, the layer says of the one word what it said of the other."""
    model = opened(name)
    site = f"{encoder}/layer.0/{kind}"

    def said(word: str) -> torch.Tensor:
        seen: list[torch.Tensor] = []
        with torch.no_grad(), intervening(model, Intervention(site, lambda x, _: seen.append(x.clone()))):
            words = model.encode([f"a {word}"])[0].of(encoder)
        return seen[0][0, max(words.find(word))]

    wanted, before = said("dog"), said("cat")
    edit = quickfix(model, {"cat": "dog"}, site=site, **{**SMALL, "ridge": 1e-9})
    gap = (before - wanted).abs().max()
    with edit.applied(model):
        assert (said("cat") - wanted).abs().max() < 0.01 * gap
    assert torch.equal(said("cat"), before) and gap > 1e-5


# the slot's own place -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "said", "meant"),
    [
        ("a {} or cat", "cat", "dog"),
        ("a {} or dog", "cat", "dog"),
        ("a cat or {}", "cat", "dog"),
        ("two {}s", "cat", "dog"),
        ("a {}fighter", "fire", "red"),
        ("一只{}在跑", "cat", "dog"),
    ],
)
def test_the_words_own_place_is_edited_wherever_it_stands(
    model: Any, template: str, said: str, meant: str
) -> None:
    source, target = (template.replace("{}", word) for word in (said, meant))
    at = template.index("{}")
    place = [max(model.encode([t])[0].at(at, at + len(w))) for t, w in ((source, said), (target, meant))]
    want, was = outputs(model, target)[place[1]], outputs(model, source)[place[0]]
    with quickfix(model, {said: meant}, **{**SMALL, "templates": [template]}).applied(model):
        got = outputs(model, source)[place[0]]
    assert (got - want).abs().max() < 1e-3 * (was - want).abs().max()


@pytest.mark.parametrize("asked", [{"猫": "dog"}, {"dog": "猫"}, {"catが": "dog"}])
@pytest.mark.parametrize(("name", "encoder"), READING)
def test_words_that_the_tokenizer_does_not_know_are_refused(
    name: str, encoder: str, asked: dict[str, str]
) -> None:
    """They are all read alike: an edit of one would be an edit of all, or of nothing."""
    site = f"{encoder}/layer.0/self_attn.out"
    with pytest.raises(LookupError, match=f"^{encoder}: the tokenizer does not know '(cat)?[猫が]'"):
        quickfix(opened(name), asked, site=site)


# several text encoders ------------------------------------------------------------------------------------

SEVERAL = {"sdxl": 2, "sd3": 3, "flux-dev": 2}


@pytest.mark.parametrize("name", SEVERAL)
def test_all_that_the_denoiser_reads_is_edited(name: str) -> None:
    model = opened(name)

    def read(text: str) -> dict[str, Tensor]:
        with torch.no_grad():
            (prompt,) = model.encode([text])
        assert prompt.pooled is not None
        own = {"tokens": prompt.embeds, "pooled": prompt.pooled}
        return own | (
            {"first": prompt.embeds[:, :16], "second": prompt.embeds[:, 16:]} if name == "sdxl" else {}
        )

    was, want = read("a cat"), read("a dog")
    edit = quickfix(model, {"cat": "dog"}, templates=["a {}"], ridge=1e-8, keep=())
    with edit.applied(model):
        now = read("a cat")
    left = {part: float((now[part] - want[part]).norm() / (was[part] - want[part]).norm()) for part in was}
    assert left.pop("pooled") < 0.5
    assert all(x < 0.9 for x in left.values()), left  # the word's own embedding goes past the layer
    assert len(edit.deltas) == SEVERAL[name] and edit.note["unedited"] == []
    assert set(edit.note["reaches"]) == {f"{e}/layer.0/self_attn.out" for e in model.text_encoders}


def test_what_an_edit_of_one_encoder_leaves_is_named() -> None:
    model = opened("sdxl")
    edit = quickfix(model, {"cat": "dog"}, site=SITE)
    assert edit.note["unedited"] == ["text_encoder_2"] and edit.note["reaches"] == {SITE: ["tokens"]}
    with torch.no_grad():
        (before,) = model.encode(["a cat"])
        with edit.applied(model):
            (after,) = model.encode(["a cat"])
    assert torch.equal(before.pooled, after.pooled) and torch.equal(
        before.embeds[:, 16:], after.embeds[:, 16:]
    )
    assert not torch.equal(before.embeds[:, :16], after.embeds[:, :16])
    late = quickfix(model, {"cat": "dog"}, site="text_encoder_2/layer.1/mlp.out")
    assert list(late.note["reaches"].values()) == [["pooled"]]


def test_layers_that_the_denoiser_does_not_read_are_refused() -> None:
    with pytest.raises(ValueError, match="does not read what text_encoder/layer.1/mlp.out does, so changing"):
        quickfix(opened("sdxl"), {"cat": "dog"}, site="text_encoder/layer.1/mlp.out")


def test_an_encoder_that_is_not_heard_is_left_alone_by_itself_and_refused_if_named() -> None:
    model = denoscope.load(tiny_flux())
    model.t5_tokens = 24
    with torch.no_grad():
        model.components["text_encoder"].final_layer_norm.weight.zero_()
    edit = quickfix(model, {"cat": "dog"})
    assert edit.note["unedited"] == ["text_encoder"] and len(edit.deltas) == 1
    with pytest.raises(ValueError, match="does not read what text_encoder/layer.0/self_attn.out does"):
        quickfix(model, {"cat": "dog"}, site=SITE)


@pytest.mark.parametrize(
    ("site", "message"),
    [
        ([], "site is \\[\\]; name one layer"),
        ([SITE, SITE.replace("0", "1")], "one layer for each text encoder"),
    ],
)
def test_at_most_one_layer_of_each_encoder(model: Any, site: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        quickfix(model, {"cat": "dog"}, site=site)
