"""Keys of joint attention's text layers: the layers that there are, one list of moments for all texts."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from denoscope import load
from denoscope.editing import explain, uce
from denoscope.editing.lowrank import dense
from denoscope.editing.text_edit import EditSettings
from denoscope.models.synthetic.tiny_families import tiny_flux, tiny_sd3
from denoscope.probes.joint_text import JOINT, MOMENTS, joint_inputs, joint_layers

EXACT = EditSettings(templates=("a {}",), tokens="subject", ridge=1e-9)


@pytest.fixture(scope="module", params=[tiny_sd3, tiny_flux])
def joint(request: Any) -> Any:
    return load(request.param())


def test_every_double_block_has_keys_and_values_of_its_text(joint: Any, tiny: Any) -> None:
    layers = joint_layers(joint)
    names = [
        n
        for n, _ in joint.components["transformer"].named_modules()
        if n.endswith(("add_k_proj", "add_v_proj"))
    ]
    assert [x.weight for x in layers] == [f"transformer.{n}.weight" for n in names] and len(names) >= 4
    assert all(x.space.startswith(JOINT) for x in layers)
    assert len({x.space for x in layers}) == len(layers) // 2
    assert not joint_layers(tiny)


def test_states_are_those_of_the_same_moments_whatever_the_other_texts(joint: Any) -> None:
    layer = joint_layers(joint)[-1]
    both = joint_inputs(joint, layer, ["a cat", "a dog"])
    alone = joint_inputs(joint, layer, ["a dog"])
    tokenizers = len(joint.encode(["a cat"])[0].segments)
    assert len(both["a cat"]) == len(both["a dog"]) == MOMENTS * tokenizers
    for a, b in zip(both["a dog"], alone["a dog"], strict=True):
        torch.testing.assert_close(a.values, b.values, rtol=1e-4, atol=1e-5)
    assert not torch.equal(both["a dog"][0].values, both["a dog"][tokenizers].values)  # the time scales it


def test_an_edit_of_these_layers_has_the_source_read_as_the_target_at_the_moments(joint: Any) -> None:
    edit = uce(joint, {"cat": "dog"}, keep=(), weights="transformer.*.add_[kv]_proj.weight", settings=EXACT)
    layers = joint_layers(joint)
    assert sorted(edit.deltas) == sorted(x.weight for x in layers)
    assert edit.note["unedited"]  # the embedder before the blocks, where edits go by themselves
    layer = layers[0]
    said, meant = joint_inputs(joint, layer, ["a cat", "a dog"]).values()
    weight, delta = layer.module.weight.double(), dense(edit.deltas[layer.weight])
    for a, b in zip(said, meant, strict=True):
        slot = a.words.find("cat")
        want = (b.values[slot].double() - a.values[slot].double()) @ weight.T
        assert (a.values[slot].double() @ delta.T - want).norm() < 1e-2 * want.norm()
    assert float(explain(edit, joint).requests["met"].iloc[0]) > 0.9


def test_edits_do_not_go_there_by_themselves(joint: Any) -> None:
    assert not any("add_" in name and "embed" not in name for name in uce(joint, {"cat": "dog"}).deltas)
