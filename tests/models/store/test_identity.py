"""What numbers depend on is in the keys of what is kept: one thing more or less, and they differ."""

from contextlib import ExitStack
from dataclasses import dataclass

import pytest
import torch
from diffusers import EulerDiscreteScheduler
from diffusers.configuration_utils import FrozenDict
from diffusers.models.attention_processor import AttnProcessor

from denoscope.guidance import CFG
from denoscope.models.errors import StateError, UsageError
from denoscope.models.load import load
from denoscope.models.run.sampling import Sampling
from denoscope.models.store.canonical import differences
from denoscope.models.store.identity import identity
from denoscope.models.synthetic.tiny import tiny_sd

HOW = Sampling(steps=2, guidance=3.0)
ATTENTION = "mid_block.attentions.0.transformer_blocks.0.attn2"


@pytest.fixture(scope="module")
def model():
    return load(tiny_sd())


def normal(network):
    return next(layer for layer in network.modules() if isinstance(layer, torch.nn.LayerNorm))


def configured(patch, component, **changed):
    patch.setattr(component, "_internal_dict", FrozenDict({**component.config, **changed}))


def weighted(stack, layer, weight):
    stack.callback(setattr, layer, "weight", layer.weight)
    layer.weight = torch.nn.Parameter(weight)


def halved(stack, layer):
    """The same values in another number format."""
    assert torch.equal(layer.weight, layer.weight.half().float())
    weighted(stack, layer, layer.weight.half())


def written(stack, layer):
    weighted(stack, layer, layer.weight + 1)


def processed(patch, layer):
    patch.setattr(layer, "processor", AttnProcessor())


WAYS = {
    "a weight": ("weights", lambda _, m, s: written(s, m.pipe.unet.conv_in)),
    "a weight of the text encoder": (
        "weights",
        lambda _, m, s: written(s, normal(m.pipe.text_encoder)),
    ),
    "configuration": (
        "configuration.vae.scaling_factor",
        lambda p, m, _: configured(p, m.pipe.vae, scaling_factor=0.5),
    ),
    "configuration of the pipeline": (
        "configuration.pipeline.requires_safety_checker",
        lambda p, m, _: configured(p, m.pipe, requires_safety_checker=True),
    ),
    "number format": ("formats.unet", lambda _, m, s: halved(s, m.pipe.unet.conv_norm_out)),
    "scheduler": (
        "scheduler",
        lambda p, m, _: p.setattr(m.pipe, "scheduler", EulerDiscreteScheduler.from_config(m.scheduler.config)),  # noqa: E501
    ),
    "scheduler's configuration": (
        "scheduler.beta_end",
        lambda p, m, _: configured(p, m.scheduler, beta_end=0.5),
    ),
    "scheduler's shift": ("scheduler.shift", lambda p, m, _: p.setitem(vars(m.scheduler), "_shift", 3.0)),
    "FreeU": (
        "layers.unet",
        lambda p, m, s: (m.pipe.enable_freeu(0.9, 0.2, 1.2, 1.4), s.callback(m.pipe.disable_freeu)),
    ),
    "tiling": ("layers.vae", lambda p, m, _: p.setattr(m.pipe.vae, "use_tiling", True)),
    "attention": ("layers.unet", lambda p, m, _: processed(p, m.pipe.unet.get_submodule(ATTENTION))),
    "autocast": ("computes.autocast", lambda p, m, s: s.enter_context(torch.autocast("cpu", torch.bfloat16))),
    "precision": (
        "computes.matmul",
        lambda p, m, s: (torch.set_float32_matmul_precision("high"),
                         s.callback(torch.set_float32_matmul_precision, "highest")),
    ),
    "true guidance": ("settings.true_scale", lambda p, m, _: p.setattr(m, "true_cfg_scale", 2.0)),
    "numerics": (
        "numerics",
        lambda p, m, _: p.setattr("denoscope.models.store.identity.NUMERICS", -1),
    ),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_what_a_network_computes_with_is_in_it(model, monkeypatch, way):
    name, change = WAYS[way]
    before = identity(model, HOW, 4)
    with monkeypatch.context() as patch, ExitStack() as stack:
        change(patch, model, stack)
        found = list(differences(before, identity(model, HOW, 4)))
        assert found and all(one.startswith(f"{name}{'.' if name == 'scheduler' else ' '}") for one in found)
    assert identity(model, HOW, 4) == before


SETTINGS = [
    ({}, 5),
    ({"steps": 3}, 4),
    ({"guidance": 4.0}, 4),
    ({"guidance": CFG(3.0, rescale=0.5)}, 4),
    ({"guidance_rescale": 0.7}, 4),
    ({"negative": "red"}, 4),
    ({"eta": 0.5}, 4),
    ({"timesteps": [900, 100]}, 4),
    ({"timesteps": [900, 200]}, 4),
    ({"sigmas": [9, 1]}, 4),
    ({"clip_skip": 1}, 4),
    ({"long_prompts": "chunks"}, 4),
    ({"long_prompts": 2}, 4),
]


def test_settings_are_in_it(model):
    plain = {"steps": 2, "guidance": 3.0}
    told = [identity(model, Sampling(**{**plain, **more}), batch) for more, batch in SETTINGS]
    told += [identity(model, HOW, 4), identity(model.sized((32, 16)), HOW, 4)]
    assert all(one not in told[:i] for i, one in enumerate(told))


def test_it_is_the_same_for_the_same_model_elsewhere(model, monkeypatch):
    other = load(tiny_sd())
    other.name = "another/folder"
    configured(monkeypatch, other.pipe.unet, _name_or_path="another/folder", _diffusers_version="9.9")
    other.pipe.text_encoder.config._name_or_path = "another/folder"
    assert identity(other, HOW, 4) == identity(model, HOW, 4)


def test_what_nobody_can_tell_of_is_refused(model, monkeypatch):
    layer = model.pipe.unet.get_submodule(ATTENTION)
    hook = layer.register_forward_hook(lambda *_: None)
    with pytest.raises(StateError, match=r"unet.*attn2 has a hook .*lambda>.*an Intervention with a spec"):
        identity(model, HOW, 4)
    hook.remove()
    with monkeypatch.context() as patch:
        patch.setitem(vars(layer), "forward", lambda *_: None)
        with pytest.raises(StateError, match="a hook or a method of somebody's own"):
            identity(model, HOW, 4)

    class Mine:
        scale = 1.0

    monkeypatch.setattr(layer, "processor", Mine())
    with pytest.raises(UsageError, match="the attention processor of unet.*Mine is code of your own"):
        identity(model, HOW, 4)
    told = []
    for version in (1, 2):
        layer.processor.spec = {"version": version}
        told.append(identity(model, HOW, 4))
    assert told[0]["layers"] != told[1]["layers"]


def test_guidance_of_ones_own_needs_a_spec(model):
    @dataclass(frozen=True)
    class Mine(CFG):
        spec = None

    with pytest.raises(UsageError, match="the guidance .*Mine is code of your own"):
        identity(model, Sampling(steps=2, guidance=Mine(3.0)), 4)
