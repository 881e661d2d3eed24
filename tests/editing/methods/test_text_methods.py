"""TIME, UCE, LocoEdit and null-space edits: the published rows and formulas, laws, families, refusals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

import denoscope
from denoscope import Edit
from denoscope.editing import locoedit, nullspace, time, uce
from denoscope.editing.lowrank import dense
from denoscope.editing.methods.nullspace import SPEED
from denoscope.editing.methods.uce import CODE, OURS
from denoscope.editing.methods.uce import asked as uce_asked
from denoscope.editing.text_edit import space_rows
from denoscope.models.synthetic.tiny import tiny_sd
from denoscope.probes.text_layers import POOLED, TextLayer, text_inputs, text_layers
from denoscope.probes.text_states import token_states
from tests.models.families.test_families import opened

EXACT = replace(OURS, templates=("a {}",), tokens="subject", ridge=1e-9)
READING = ("sd", "sdxl", "pixart-alpha", "sana", "sd3", "flux-dev", "ldm")
METHODS: dict[str, Callable[..., Edit]] = {
    "uce": uce,
    "time": time,
    "nullspace": partial(
        nullspace, hold=["a mat"], settings=SPEED
    ),  # all tokens of a text leave no room here
}


@pytest.fixture(scope="module")
def model() -> Any:
    return denoscope.load(tiny_sd())


def weight(model: Any, layer: TextLayer) -> Tensor:
    return model.parameter(layer.weight).detach().cpu().double()[:, : layer.columns]


def rows(model: Any, text: str) -> Tensor:
    return token_states(model, [text])[text].values.double()


def last(model: Any, text: str) -> Tensor:
    """The state of a text's last token."""
    states = token_states(model, [text])[text]
    return states.values[states.words.end - 1].double()


# the published formulas -----------------------------------------------------------------------------------


def test_uce_is_the_authors_formula(model: Any) -> None:
    """uce_sd_erase.py: last token of each concept, values from the guide's last token, lambda 0.5."""
    cat, dog, mat = (last(model, t) for t in ("cat", "dog", "mat"))
    edit = uce(model, {"cat": "dog"}, keep=["mat"], settings="code")
    assert len(edit.deltas) == 8
    for name, delta in edit.deltas.items():
        old = model.parameter(name).detach().double()
        left = 0.5 * old + old @ (torch.outer(dog, cat) + torch.outer(mat, mat))
        right = 0.5 * torch.eye(16, dtype=torch.float64) + torch.outer(cat, cat) + torch.outer(mat, mat)
        torch.testing.assert_close(old + dense(delta), left @ torch.linalg.inv(right))


def test_the_authors_take_the_begin_token_for_nothing(model: Any) -> None:
    cat, empty = rows(model, "cat")[1], rows(model, "")
    old = model.parameter(name := next(iter(uce(model, {"cat": ""}).deltas))).detach().double()
    for how, target in (("begin", empty[0]), ("gap", empty[1])):
        edit = uce(model, {"cat": ""}, keep=(), settings=replace(CODE, empty=how, ridge=1e-9))
        torch.testing.assert_close((old + dense(edit.deltas[name])) @ cat, old @ target, rtol=0, atol=1e-6)


def test_debiasing_adds_the_attributes_outputs(model: Any) -> None:
    cat, red, mat = (last(model, t) for t in ("cat", "red", "mat"))
    how = replace(CODE, ridge=1e-9)
    edit = uce(model, {}, debias={"cat": {"red": 0.5, "mat": -0.25}}, keep=(), settings=how)
    for name, delta in edit.deltas.items():
        old = model.parameter(name).detach().double()
        wanted = old @ (cat + 0.5 * red - 0.25 * mat)
        torch.testing.assert_close((old + dense(delta)) @ cat, wanted, rtol=0, atol=1e-6)


def test_time_is_the_authors_formula(model: Any) -> None:
    """train_funcs.py: all tokens of "cat" beside their fellows in "red cat", lambda 0.1."""
    keys, said = rows(model, "cat"), rows(model, "red cat")
    targets = said[[0, *range(2, len(said)), len(said) - 1]]
    edit = time(model, {"cat": "red cat"}, keep=(), settings=replace(OURS, templates=("{}",), ridge=0.1))
    for name, delta in edit.deltas.items():
        old = model.parameter(name).detach().double()
        left = 0.1 * old + old @ targets.T @ keys
        right = 0.1 * torch.eye(16, dtype=torch.float64) + keys.T @ keys
        torch.testing.assert_close(old + dense(delta), left @ torch.linalg.inv(right))
    whole = time(model, {"cat": "red cat"}, settings="paper", keep=())
    assert whole.note["spaces"]["tokens"] == {"ridge": 0.1, "rows": 4 * 32}


def test_locoedit_is_the_authors_formula(model: Any) -> None:
    """loco_edit.py: the token before the end of four wordings, all read as that of the plain target."""
    wordings = ["cat", *(f"a {kind} in the style of cat" for kind in ("painting", "photo", "picture"))]
    lasts = [last(model, t) for t in (*wordings, "red dog")]
    *keys, target = lasts
    k = torch.stack(keys)
    edit = locoedit(
        model, {"cat": "red dog"}, weights="unet/mid.attn.0.0/cross_attn.out", settings="paper", keep=()
    )
    assert {n.split(".")[-2] for n in edit.deltas} == {"to_k", "to_v"} and len(edit.deltas) == 2
    for name, delta in edit.deltas.items():
        old = model.parameter(name).detach().double()
        left = 0.01 * old + torch.outer(old @ target, k.sum(0))
        right = 0.01 * torch.eye(16, dtype=torch.float64) + k.T @ k
        torch.testing.assert_close(old + dense(delta), left @ torch.linalg.inv(right), rtol=1e-5, atol=1e-7)


def test_the_null_space_holds_rows_and_not_pictures(model: Any) -> None:
    """SPEED holds the last token of a text; the denoiser reads the others too, so its pictures move."""
    edit = nullspace(model, {"cat": "dog"}, hold=["a mat"], settings=replace(SPEED, projections="kv"))
    held, place = rows(model, "a mat"), model.encode(["a mat"])[0].end - 1
    for delta in edit.deltas.values():
        drift = held @ dense(delta).T
        assert drift[place].abs().max() < 1e-12 < 1e-4 < drift.abs().max()
    assert 0 < edit.note["spaces"]["tokens"]["free"] < 1
    plain = painted(model, "a mat")
    with edit.applied(model):
        assert not torch.allclose(painted(model, "a mat"), plain, atol=1e-4)


def test_pictures_of_texts_that_are_held_whole_do_not_move() -> None:
    """Masked padding leaves few rows, so that a tiny transformer has room."""
    model = opened("pixart-alpha")
    how = replace(OURS, templates=("{}",), tokens="subject", ridge=1e-6)
    edit = nullspace(model, {"cat": "dog"}, hold=["", "a mat"], settings=how)
    texts = "a mat", "a cat"
    plain = [painted(model, text) for text in texts]
    with edit.applied(model):
        kept, changed = (painted(model, text) for text in texts)
    assert (kept - plain[0]).norm() < 1e-3 * (changed - plain[1]).norm()  # weights are rounded to float32


def painted(model: Any, text: str, negative: str = "") -> Tensor:
    return denoscope.trace(model, [text], seeds=[0], steps=2, guidance=3.0, negative=negative).latents


# laws -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", READING)
def test_every_family_reads_the_source_as_the_target(name: str) -> None:
    """All that the denoiser is told of a text, tokens and pooled vector, in one edit."""
    model = opened(name)
    edit = uce(model, {"cat": "dog"}, keep=(), settings=EXACT)
    assert not edit.note["unedited"]
    layers = [x for x in text_layers(model) if x.weight in edit.deltas]
    assert (POOLED in {x.space for x in layers}) == (model.encode(["a"])[0].pooled is not None)
    for layer in layers:
        said, meant = text_inputs(model, layer, ["a cat", "a dog"]).values()
        for a, b in zip(said, meant, strict=True):
            slot = [0] if layer.space == POOLED else a.words.find("cat")
            want = (b.values[slot].double() - a.values[slot].double()) @ weight(model, layer).T
            got = a.values[slot].double() @ dense(edit.deltas[layer.weight])[:, : layer.columns].T
            assert (got - want).norm() < 1e-3 * want.norm()
    with edit.applied(model):  # it is written, and taken back, in every family
        pass


def test_sizes_of_the_picture_are_left_alone() -> None:
    """Stable Diffusion XL's layer of the pooled vector reads the sizes too."""
    edit = uce(opened("sdxl"), {"cat": "dog"})
    delta = dense(edit.deltas["unet.add_embedding.linear_1.weight"])
    assert delta[:, :16].norm() > 0 and not delta[:, 16:].any()


@pytest.mark.parametrize("name", METHODS)
def test_order_and_repetition_do_not_matter(model: Any, name: str) -> None:
    asked = {"cat": "red cat", "hat": "red hat"} if name == "time" else {"cat": "dog", "hat": ""}
    one = METHODS[name](model, asked)
    other = METHODS[name](model, dict(reversed(asked.items())))
    for weight_name in one.deltas:
        torch.testing.assert_close(dense(one.deltas[weight_name]), dense(other.deltas[weight_name]))


@pytest.mark.parametrize("name", METHODS)
def test_meaning_what_is_said_changes_nothing(model: Any, name: str) -> None:
    edit = METHODS[name](model, {"cat": "cat"})
    assert max(float(dense(d).abs().max()) for d in edit.deltas.values()) < 1e-12


def test_one_word_is_changed_in_one_surrounding_alone(model: Any) -> None:
    """No hat on the cat; the dog keeps its own."""
    how = replace(OURS, templates=("a cat and a {}",), ridge_scale=1e-3, kept_tokens="all")
    kept = ["a dog and a hat", "a hat"]
    edit = uce(model, {"hat": ""}, keep=kept, settings=how)
    met = {t: [] for t in ("cat", "dog")}
    for layer in [x for x in text_layers(model) if x.weight in edit.deltas]:
        for animal in met:
            state = text_inputs(model, layer, [text := f"a {animal} and a hat"])[text][0]
            key = state.values[state.words.find("hat")[0]].double()
            moved = dense(edit.deltas[layer.weight]) @ key
            met[animal].append(float(moved.norm() / (weight(model, layer) @ key).norm()))
    assert all(dog < cat for cat, dog in zip(met["cat"], met["dog"], strict=True))
    assert sum(met["dog"]) < 0.4 * sum(met["cat"])


def test_layers_are_chosen_by_sites_or_names(model: Any) -> None:
    def changed(weights: Any, **more: Any) -> set[str]:
        return {n.removeprefix("unet.") for n in uce(model, {"cat": "dog"}, weights=weights, **more).deltas}

    block = "mid_block.attentions.0.transformer_blocks.0.attn2."
    both = {f"{block}to_k.weight", f"{block}to_v.weight"}
    assert changed("unet/mid.attn.0.0/cross_attn.out") == both
    assert changed(["unet/mid.attn.0.0/cross_attn.v_proj"]) == {f"{block}to_v.weight"}
    assert changed("unet.mid_block*to_k.weight") == {f"{block}to_k.weight"}
    assert len(changed(["unet/up.*/cross_attn.out", "unet/mid*/cross_attn.out"])) == 6
    assert changed(None, settings=replace(OURS, projections="v")) == {n for n in changed(None) if "to_v" in n}
    edit = uce(opened("sdxl"), {"cat": "dog"}, weights="unet/mid*/cross_attn.out")
    assert edit.note["unedited"] == [POOLED]


# refusals -------------------------------------------------------------------------------------------------

CALLS: dict[str, tuple[Callable[[Any], Any], type[Exception], str]] = {
    "nothing asked": (lambda m: uce(m, {}), ValueError, "requests is {}; write"),
    "nothing said": (lambda m: time(m, {" ": "dog"}), ValueError, "says nothing"),
    "two meanings": (
        lambda m: uce(m, {"cat": "dog", "Cat": "mat"}),
        ValueError,
        "'Cat' is asked to mean 'dog' and 'mat'; choose one",
    ),
    "erased and kept": (
        lambda m: uce(m, {"cat": ""}, keep=["", "a photo of cat"]),
        ValueError,
        "'a photo of cat' is to be read otherwise, and stands in keep",
    ),
    "edited and held": (
        lambda m: nullspace(m, {"cat": "dog"}, hold=["cat"]),
        ValueError,
        "'cat' is to be read otherwise, and stands in hold",
    ),
    "no room": (
        lambda m: nullspace(m, {"cat": "dog"}, hold=["", "a mat", "a red dog"]),
        ValueError,
        "span all 16 directions of the layer's input, so no change is left",
    ),
    "no attributes": (lambda m: uce(m, {}, debias={"cat": {}}), ValueError, "debias asks 'cat' for {}"),
    "not more words": (
        lambda m: time(m, {"cat": "dog"}),
        ValueError,
        "'dog' is not 'cat' with more words: it lacks 'cat' there",
    ),
    "too long": (lambda m: uce(m, {"cat": "dog " * 40}), ValueError, "has 42 tokens"),
    "bad ridge": (
        lambda m: uce(m, {"a": "b"}, settings=replace(OURS, ridge=0.0)),
        ValueError,
        "ridge is 0.0",
    ),
    "bad scale": (
        lambda m: uce(m, {"a": "b"}, settings=replace(OURS, ridge_scale=-1.0)),
        ValueError,
        "ridge_scale is -1.0; it is a number above 0",
    ),
    "settings": (
        lambda m: uce(m, {"cat": "dog"}, settings="papers"),
        LookupError,
        "no settings 'papers'; there are 'ours', 'code'",
    ),
    "no such site": (lambda m: uce(m, {"cat": "dog"}, weights="unet/top/x"), LookupError, "unet/top/x"),
    "not of text": (
        lambda m: uce(m, {"cat": "dog"}, weights="unet/mid.res.0/resnet.out"),
        LookupError,
        "names no layer",
    ),
    "no such weight": (
        lambda m: uce(m, {"cat": "dog"}, weights="unet.conv_in.weight"),
        LookupError,
        "'unet.conv_in.weight' names no layer of StableDiffusionPipeline that reads the text alone",
    ),
    "no text": (lambda _: uce(opened("ddpm"), {"cat": "dog"}), ValueError, "reads no text"),
}


@pytest.mark.parametrize("case", CALLS)
def test_what_cannot_be_is_said(model: Any, case: str) -> None:
    call, error, message = CALLS[case]
    with pytest.raises(error, match=message):
        call(model)


def test_fused_projections_are_refused() -> None:
    pipe = tiny_sd()
    pipe.fuse_qkv_projections()
    with pytest.raises(RuntimeError, match=r"unfuse_qkv_projections\(\)"):
        uce(denoscope.load(pipe), {"cat": "dog"})


def test_kept_texts_hold_by_their_last_word_and_the_empty_one_by_all(model: Any) -> None:
    layer = text_layers(model)[0]
    states = {text: parts[0] for text, parts in text_inputs(model, layer, ["", "a mat"]).items()}
    none, mat = states[""].values.double(), states["a mat"].values.double()
    last = states["a mat"].words.end - 1
    wanted = {
        "subject+empty": torch.cat([none, mat[last : last + 1]]),
        "subject": torch.cat([none[:1], mat[last : last + 1]]),
        "all": torch.cat([none, mat]),
    }
    asked = uce_asked({"requests": {"cat": "dog"}, "debias": {}}, OURS)
    for tokens, rows in wanted.items():
        how = replace(OURS, kept_tokens=tokens)
        (made,) = space_rows(model, text_layers(model), asked, how, keep=["", "a mat"], hold=())
        torch.testing.assert_close(made.kept, rows, check_device=False)
    assert OURS.kept_tokens == "subject+empty" and CODE.kept_tokens == "subject"
