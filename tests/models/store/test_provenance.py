"""Provenance says all that is needed to make a result again, in JSON."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

from denoscope import Edit, Trace, load, trace
from denoscope.models.store.fingerprint import fingerprint
from denoscope.models.store.numerics import NUMERICS
from denoscope.models.store.provenance import provenance, scheduler_config
from denoscope.models.synthetic.tiny import tiny_sd
from tests.models.families.test_families import FAMILIES


def test_it_says_where_a_result_came_from(tiny):
    about = provenance(tiny, steps=3, guidance=2.0)
    assert (about["model"], about["weights"], about["numerics"]) == (tiny.name, fingerprint(tiny), NUMERICS)
    assert (about["size"], about["dtype"], about["device"]) == (list(tiny.size), "float32", tiny.device.type)
    assert about["scheduler"] == type(tiny.scheduler).__name__
    assert about["scheduler_config"]["beta_end"] == tiny.scheduler.config.beta_end
    assert set(about["versions"]) == {"python", "denoscope", "torch", "diffusers", "transformers"}
    assert (about["steps"], about["guidance"]) == (3, 2.0)


def test_the_scheduler_can_be_made_again_from_it():
    made = DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++", use_karras_sigmas=True)
    config = json.loads(json.dumps(scheduler_config(made), allow_nan=False))
    assert config["lambda_min_clipped"] == "-inf" and float(config["lambda_min_clipped"]) == -math.inf
    config["lambda_min_clipped"] = -math.inf
    assert scheduler_config(DPMSolverMultistepScheduler(**config)) == scheduler_config(made)


def test_arrays_in_a_configuration_are_lists():
    made = DDIMScheduler(trained_betas=np.linspace(1e-4, 2e-2, 1000))
    assert scheduler_config(made)["trained_betas"][:1] == [1e-4]


def test_all_of_a_configuration_is_plain():
    made = SimpleNamespace(config={"a": (1, math.inf), "b": {"c": -math.inf, 1: np.ones(1)}, "d": int})
    assert scheduler_config(made) == {"a": [1, "inf"], "b": {"c": "-inf", "1": [1.0]}, "d": repr(int)}


def test_another_scheduler_setting_is_another_provenance():
    a, b = load(tiny_sd()), load(tiny_sd())
    assert provenance(a) == provenance(b)
    b.pipe.scheduler = type(b.scheduler).from_config(b.scheduler.config)
    assert provenance(a) == provenance(b)  # what diffusers notes for itself does not count
    b.pipe.scheduler = type(b.scheduler).from_config(
        b.scheduler.config, steps_offset=0, timestep_spacing="linspace"
    )
    assert provenance(a) != provenance(b)


@pytest.mark.parametrize("name", ["sd3", "dit", "ddpm"])
def test_every_family_has_one_in_plain_json(name):
    made = provenance(load(FAMILIES[name].make()))
    assert json.loads(json.dumps(made, allow_nan=False)) == made


def test_traces_and_edits_carry_it(tmp_path):
    model = load(tiny_sd())
    plain = fingerprint(model)
    name = next(iter(model.weights("unet/mid.attn.0.0/cross_attn.out")))
    edit = Edit.of(model, {name: torch.full_like(model.parameter(name), 0.1)})
    edit.save(tmp_path / "edit.safetensors")
    assert Edit.load(tmp_path / "edit.safetensors").note["weights"] == plain
    with edit.applied(model):
        run = trace(model, ["a cat"], seeds=[0], steps=2, sites=[])
        assert run.about["weights"] == fingerprint(model) != plain
    run.save(tmp_path / "run.zarr")
    assert Trace.load(tmp_path / "run.zarr").about == json.loads(json.dumps(run.about))
