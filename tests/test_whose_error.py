"""Whose error is it: a wrong argument of a public function is told by an error of ours, and leaves no trace.

Each public function has a valid call in ``calls``; the walk replaces one of its arguments by something else.
Either the result is valid, or the error is a ``DenoscopeError`` (an ``OSError`` where the disk says it), and
the model and all global random states are as they were.
"""

from __future__ import annotations

import dataclasses
import inspect
import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import hypothesis
import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import strategies as st
from safetensors.torch import save_file

from denoscope import analysis, editing, guidance, probes
from denoscope.analysis import intervals, metrics, scores
from denoscope.editing import ridge
from denoscope.guidance import CFG, Asymmetric
from denoscope.investigation import Case
from denoscope.models import judges, zoo
from denoscope.models.arguments import _hints
from denoscope.models.check import check_model
from denoscope.models.errors import DenoscopeError
from denoscope.models.load import load
from denoscope.models.run.sampling import Sampling
from denoscope.models.synthetic.tiny import tiny_sd
from denoscope.models.synthetic.tiny_families import tiny_flux
from denoscope.models.synthetic.tiny_judges import save_tiny_classifier, save_tiny_clip
from denoscope.probes import intervene
from denoscope.probes.attach import attached
from denoscope.probes.denoising_errors import Strata, error_bank
from denoscope.probes.direction import Direction
from denoscope.probes.directions.token_rows import TokenRows
from denoscope.probes.invert import invert
from denoscope.probes.observe import Observer
from denoscope.probes.sweep.sweeping import SweepRun, sweep
from denoscope.probes.trace import Trace, trace
from tests.conftest import Watch
from tests.dictionaries import doubled

import denoscope  # isort: skip

pytestmark = [pytest.mark.misshapen, pytest.mark.filterwarnings("ignore")]

Call = tuple[Callable[..., Any], dict[str, Any]]

SITE = "unet/mid.attn.0.0/cross_attn.out"
LATE = "unet/up.0.attn.1/resid.post"
PROBS = "unet/mid.attn.0.0/cross_attn.probs"
LAYER = "text_encoder/layer.0/self_attn.out"
FEW = editing.EditSettings(templates=("a {}",), tokens="subject", held_tokens="subject")
HOMES = ("denoscope", "denoscope.models", "denoscope.probes", "denoscope.editing", "denoscope.editing.export",
         "denoscope.analysis", "denoscope.guidance", "denoscope.models.judges",
         "denoscope.probes.intervene", "denoscope.probes.denoising_errors")  # fmt: skip

OURS = "made by our runs, handed out and not asked for"
FAMILY = "what a family fills in, called by runs with what they made"
OWN = "what somebody fills in, who answers for it"
EXCEPTIONS = {
    "Model": FAMILY,
    "Model.accounted": FAMILY,
    "Model.calling": FAMILY,
    "Model.decode": FAMILY,
    "Model.negative": FAMILY,
    "Model.predict": FAMILY,
    "Model.run_pipeline": FAMILY,
    "Model.time": FAMILY,
    "Intervention.parts": FAMILY,
    "Observer.parts": FAMILY,
    "Channels.check": FAMILY,
    "Channels.restored": OURS,
    "Channels.rows": OURS,
    "Codes.times": OURS,
    "Dictionary.check": FAMILY,
    "DictionaryEdit": OURS,
    "DictionaryEdit.on": "that of every Intervention",
    "DictionaryEdit.parts": FAMILY,
    "Learning.factor": OURS,
    "Stability": OURS,
    "BiasFeatures": OURS,
    "LatentGroups": OURS,
    "FeatureScores": OURS,
    "Mitigation": OURS,
    "Circuit": OURS,
    "Discrepancy": OURS,
    "CalibratedStrength": OURS,
    "Asymmetric.active": FAMILY,
    "Asymmetric.check": FAMILY,
    "Asymmetric.branches": FAMILY,
    "Asymmetric.combine": FAMILY,
    "ActivationStore": OURS,
    "When.check": FAMILY,
    "State": OURS,
    "Trace": OURS,
    "Lens": OURS,
    "check_differentiable": OURS,
    "Outcome": OURS,
    "Outcome.some": OURS,
    "Spec": OURS,
    "StudyPlan": OURS,
    "plan_study": "hands its arguments on to the function that it counts",
    "Combined": OURS,
    "GuidanceContext": OURS,
    "measure": OURS,
    "ErrorBank": OURS,
    "ErrorBank.integral": OURS,
    "ImageTower": "a network of torch's, with torch's errors",
    "ImageTower.forward": "a network of torch's, with torch's errors",
    "Attributes": "a network of torch's, with torch's errors",
    "Attributes.features": "a network of torch's, with torch's errors",
    "Attributes.forward": "a network of torch's, with torch's errors",
    "CallableJudge": OURS,
    "ClassifierJudge": OURS,
    "ClipJudge": OURS,
    "Judge": OURS,
    "Guidance": OWN,
    "Guidance.active": OWN,
    "Guidance.branches": OWN,
    "Guidance.check": OWN,
    "Guidance.combine": OWN,
    "Term": OWN,
    "Sum": OURS,
    "Estimate": OURS,
    "CompositionGap": OURS,
    "GuidanceLog": OURS,
    "GuidanceBranch": OWN,
    "Probe": OWN,
    "Probe.parts": OWN,
    "CallableJudge.similarity": OWN,
    "TextJudge": OWN,
    "TextJudge.similarity": OWN,
    "ClipScorer": OWN,
    "ClipScorer.clip_score": OWN,
    "Classifier": OWN,
    "Classifier.probability": OWN,
    "Change": "a type",
    "investigate": "opens the embedded model: tested with Case, which it is given",
    "on_ray": "starts a cluster: its arguments are in tests/denoscope/test_cluster.py",
    "save_store": "takes any dataset, and xarray answers for it",
    "read_store": "an inner function of Scores.load",
    "load_result": "an inner function of the results' load",
}


def public() -> dict[str, Any]:
    """Every public function, class and method that takes arguments, by name."""
    found: dict[str, Any] = {}
    for home in map(import_module, HOMES):
        for name in getattr(home, "__all__", ()):
            found |= _public(name, getattr(home, name))
    return found


GUIDANCES = ("Adaptive", "CFG", "Compose", "Contrast", "EmbeddingMatch", "JudgeGradient", "LinearAG", "PAG",
             "RegionPreserve", "Sum", "Term")  # fmt: skip


def _public(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, ModuleType):
        own = {n: v for n, v in vars(value).items() if getattr(v, "__module__", "") == value.__name__}
        return {k: f for n, v in own.items() if n[0] != "_" for k, f in _public(n, v).items()}
    if inspect.isclass(value):
        names = [n for n in dir(value) if not n.startswith("_")]
        methods = {n: getattr(m, "__func__", m) for n in names if (m := inspect.getattr_static(value, n))}
        own = {f"{name}.{n}": m for n, m in methods.items() if _takes_arguments(m, bound=True)}
        return {name: value, **own}
    return {name: value} if callable(value) else {}


def _takes_arguments(function: Any, *, bound: bool) -> bool:
    if not inspect.isfunction(function) or not function.__module__.startswith("denoscope"):
        return False
    return len(inspect.signature(function).parameters) > bound


def entered(context: Callable[..., Any]) -> Callable[..., None]:
    """Return a function that goes through a context."""

    def call(*args: Any, **kwargs: Any) -> None:
        with context(*args, **kwargs):
            pass

    return call


def emptied(generator: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that runs a generator to its end."""
    return lambda **kwargs: list(generator(**kwargs))


def all_of(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Return a function that hands over one argument as ``*args``."""
    return lambda **kwargs: function(*_several(kwargs.pop(name)), **kwargs)


def _several(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else [value]


EXCEPTIONS |= {name: FAMILY for name in public() if name.partition(".")[0] in GUIDANCES and "." in name}


class World:
    """A tiny model, and a valid call of each public function on it."""

    def __init__(self) -> None:
        self.model = load(tiny_sd())
        self.model.encode(["a cat"], clip_skip=1)  # transformers keeps hooks of its own from then on
        self.run = trace(self.model, ["a cat"], seeds=[0], steps=2, sites=[SITE, PROBS])
        self.edit = editing.quickfix(self.model, {"cat": "dog"})
        self.judge = judges.load_judge("emoji")
        self.calls = {
            **self.values(),
            **self.models(),
            **self.probes(),
            **self.edits(),
            **self.analyses(),
            **self.directed(),
        }

    def values(self) -> dict[str, Call]:
        step, prompt = self.run.steps[0], self.run.prompts[0]
        state = next(self.model.sample(["a cat"], seeds=[0], steps=2)).sampler_state()
        words = {"text": "a cat", "tokens": ("a", "cat"), "spans": ((0, 1), (2, 5)), "embeds": prompt.embeds}
        return {
            **self.guidances(),
            "Asymmetric": (Asymmetric, {"guidance": 2.0, "steps": [0]}),
            "Site": (denoscope.Site, {"address": SITE}),
            "Step": (denoscope.Step, {"index": 0, "t": step.t, "sigma": step.sigma}),
            "When": (denoscope.When, {"steps": [0], "branch": "cond", "rows": (0,)}),
            "Sampling": (
                Sampling,
                {"steps": 2, "guidance": 3.0, "guidance_rescale": 0.5, "negative": "red", "size": (16, 16),
                 "eta": 0.5, "clip_skip": 1, "long_prompts": "chunks", "original_size": (8, 8)},
            ),
            "Sampling timesteps": (Sampling, {"timesteps": [900, 500]}),
            "Sampling sigmas": (Sampling, {"sigmas": [9.0, 0.5]}),
            "SamplerState.rows": (state.rows, {"rows": [0]}),
            "SamplerState.reseeded": (state.reseeded, {"seeds": [1]}),
            "SamplerState.join": (state.join, {"parts": [state, state]}),
            "Prompt": (denoscope.Prompt, words),
            "Prompt.find": (prompt.find, {"words": "cat"}),
            "Prompt.in_pieces": (prompt.in_pieces, {"words": "cat"}),
            "Prompt.reads": (prompt.reads, {"words": "cat"}),
            "Prompt.without": (prompt.without, {"words": "cat"}),
            "Prompt.at": (prompt.at, {"first": 2, "last": 5}),
            "Prompt.of": (prompt.of, {"component": "text_encoder"}),
        }  # fmt: skip

    def guidances(self) -> dict[str, Call]:
        """Valid calls of what a guidance is made of."""
        g, two, at = guidance, torch.zeros(2, 2), {"steps": range(1)}
        fit = {"guidance": CFG(2.0), "cond": two, "uncond": two, "computed": (0,), "times": (900.0, 100.0),
               "r2": (1.0, 1.0)}  # fmt: skip
        mask, latents = torch.ones(1, 8, 8), self.run.latents
        run = {"model": self.model, "seeds": [0], "steps": 2, "guidance": 2.0}
        return {
            "CFG": (CFG, {"scale": 3.0, "true_scale": 2.0, "rescale": 0.5, "steps": {0: 0.5}}),
            "PAG": (g.PAG, {"scale": 3.0, "blocks": "mid*", "name": "worse", **at}),
            "Compose": (g.Compose, {"weights": {"red": 2.0}, **at}),
            "Contrast": (g.Contrast, {"interventions": [intervene.zero(SITE)], "scale": 2.0,
                                      "name": "less", **at}),
            "JudgeGradient": (g.JudgeGradient, {"function": lambda seen: seen.images.mean((1, 2, 3)),
                                                "scale": 2.0, "normalised": True, **at}),
            "EmbeddingMatch": (g.EmbeddingMatch, {"judge": self.judge, "pictures": self.run.images,
                                                  "scale": 2.0, "normalised": True, **at}),
            "RegionPreserve": (g.RegionPreserve, {"mask": mask, "reference": latents, "weight": 0.5, **at}),
            "Adaptive": (g.Adaptive, {"guidance": CFG(2.0), "threshold": 0.9, "on": "eps",
                                      "arm": "immediate"}),
            "LinearAG": (g.LinearAG, fit),
            "linear": (g.linear, {"steps": 3}),
            "cosine": (g.cosine, {"steps": 3}),
            "GuidanceLog.share": (self.run.guidance.share, {"part": "CFG"}),
            "composition_gap": (probes.composition_gap, {"texts": ["red", "cat"], "joint": "red cat", **run}),
            "fit_linear_ag": (probes.fit_linear_ag, {"prompts": ["a cat"], "computed": [0], **run}),
        }  # fmt: skip

    def models(self) -> dict[str, Call]:
        model, step = self.model, self.run.steps[0]
        x, images = self.run.latents, self.run.images
        one = {"model_input": x, "output": x, "step": step}
        judge, pair = self.judge, {"images": images, "texts": ["a cat"]}
        return {
            "load": (load, {"source": model.pipe, "size": (16, 16)}),
            "load name": (load, {"source": "emoji", "dtype": torch.float32, "device": "cpu", "revision": None,
                                 "variant": None, "config": None}),
            "check_model": (check_model, {"model": model, "prompts": ["a cat", "a dog"], "steps": 1,
                                          "guidance": 3.0}),
            "Model.sites": (model.sites, {"pattern": "unet/mid*/cross_attn.out"}),
            "Model.place": (model.place, {"site": SITE}),
            "Model.places_of": (model.places_of, {"sites": [SITE]}),
            "Model.module": (model.module, {"site": SITE}),
            "Model.weights": (model.weights, {"site": SITE}),
            "Model.parameter": (model.parameter, {"name": next(iter(model.weights(LAYER)))}),
            "Model.layout": (model.layout, {"site": SITE}),
            "Model.picture_and_text": (
                model.picture_and_text, {"site": denoscope.Site(PROBS), "tokens": 32}),
            "Model.steps": (model.steps, {"run": 2}),
            "Model.step_at": (model.step_at, {"sigma": 1.0}),
            "Model.step_at t": (model.step_at, {"t": 500.0}),
            "Model.step_at log_snr": (model.step_at, {"log_snr": 0.0}),
            "Model.uses_cfg": (model.uses_cfg, {"guidance": 3.0}),
            "Model.branch_names": (model.branch_names, {"guidance": 3.0}),
            "Model.start": (model.start, {"seeds": [0], "run": 2}),
            "Model.sample": (emptied(model.sample), {
                "prompts": ["a cat"], "seeds": [0], "start": model.start([0], 1), "interventions": (),
                "recompute": False, "steps": 1, "guidance": 2.0, "negative": "red", "size": (16, 16)}),
            "Model.denoise": (model.denoise, {"x": x, "steps": step, "prompts": ["a cat"], "guidance": 2.0,
                                              "negative": "red", "interventions": ()}),
            "Model.prompts": (model.prompts, {"prompts": ["a cat"]}),
            "Model.encode": (model.encode, {"texts": ["a cat"], "branch": "cond", "samples": [0],
                                            "clip_skip": 1, "long_prompts": 1}),
            "Model.layers_read": (model.layers_read, {"clip_skip": 1}),
            "Model.noise": (model.noise, {"seeds": [0]}),
            "Model.sized": (model.sized, {"size": (16, 16)}),
            "Model.encode_image": (model.encode_image, {"images": images}),
            "Model.start_at": (model.start_at, {"images": images, "step": 1, "seeds": [0], "steps": 2}),
            "Model.to_x0": (model.to_x0, one),
            "Model.to_eps": (model.to_eps, one),
            "Model.to_v": (model.to_v, one),
            "Judge.similarity": (judge.similarity, {"images": images, "others": ["a cat"]}),
            "Judge.similarity pictures": (judge.similarity, {"images": images, "others": images}),
            "Judge.clip_score": (judge.clip_score, pair),
            "Judge.labels": (judge.labels, {"attribute": "style"}),
            "Judge.probabilities": (judge.probabilities, {"images": images, "attribute": "style"}),
            "Judge.probability": (judge.probability, {"images": images, "attribute": "style",
                                                      "label": judge.labels("style")[0]}),
            "Judge.features": (judge.features, {"images": images}),
            **judged(images),
            "load_judge": (judges.load_judge, {"name": "emoji"}),
            "read_judge": (judges.read_judge, {"folder": Path("nowhere")}),
        }  # fmt: skip

    def probes(self) -> dict[str, Call]:
        model, run, when = self.model, self.run, denoscope.When()
        d, move = Direction(SITE, torch.ones(16)), intervene.zero(SITE)
        side = Direction(SITE, torch.eye(16)[0])
        rows = Direction("unet/in/text", torch.ones(3, 16), rows=TokenRows())
        d.save("direction.safetensors")
        run.save("run.zarr")
        at = {"site": SITE, "values": run, "when": when}
        return {
            "trace": (trace, {
                "model": model, "prompts": ["a cat"], "seeds": [0], "sites": [SITE], "when": when,
                "interventions": [move], "reduce": None, "dtype": torch.float64, "store": None,
                "on_step": None, "progress": None, "steps": 1, "guidance": 2.0, "negative": ["red"]}),
            "trace settings": (trace, {
                "model": model, "prompts": ["a cat"], "seeds": [0], "steps": 1, "eta": 0.5,
                "sigmas": None, "timesteps": None, "clip_skip": 1, "long_prompts": 1, "guidance_rescale": 0.1,
                "guidance": 2.0, "size": (16, 16)}),
            "Trace.at": (run.at, {"site": SITE, "step": 0}),
            "Trace.save": (lambda path: run.save(path), {"path": "run.zarr"}),
            "Trace.load": (Trace.load, {"path": "run.zarr", "model": model}),
            "Intervention": (denoscope.Intervention, {"site": SITE, "fn": lambda x, _: x, "when": when,
                                                      "spec": None}),
            "Intervention.on": (all_of(move.on, "rows"), {"rows": [0, 1]}),
            "intervening": (entered(lambda model, given: intervene.intervening(model, *_several(given))),
                            {"model": model, "given": [intervene.zero(LAYER)]}),
            "Observer": (Observer, {"sites": {"q": SITE}, "fn": lambda *_: None, "when": when}),
            "Direction": (Direction, {"site": SITE, "vector": torch.ones(16), "axis": -1,
                                       "rows": None, "about": {}}),
            "Direction.at": (d.at, {"model": model}),
            "Direction.component": (d.at(model).component, {"x": torch.ones(1, 3, 16)}),
            "Direction.steer": (d.steer, {"strength": 2.0, "when": when, "steps": None, "gate": None}),
            "Direction.ablate": (d.ablate, {"when": when}),
            "Direction.clamp": (d.clamp, {"level": 1.0, "when": when, "steps": None, "gate": None}),
            "Direction.scheduled": (d.scheduled, {"strengths": [0.0, 1.0], "branch": "cond", "gate": None}),
            "Direction.of": (rows.of, {"subject": "cat"}),
            "Direction.gate": (d.gate, {"above": 0.2, "whole": True}),
            "Direction.dot": (d.dot, {"other": d}),
            "Direction.cosine": (d.cosine, {"other": d}),
            "Direction.project": (d.project, {"other": d}),
            "Direction.orthogonal": (all_of(d.orthogonal, "others"), {"others": [side]}),
            "Direction.noted": (lambda why: d.noted(why=why), {"why": "to see"}),
            "Direction.save": (d.save, {"path": "saved.safetensors"}),
            "Direction.load": (d.load, {"path": "direction.safetensors", "model": model}),
            "scale": (self.acting(intervene.scale), {"site": SITE, "factor": 2.0, "when": when}),
            "zero": (self.acting(intervene.zero), {"site": SITE, "when": when}),
            "patch": (self.acting(intervene.patch), {**at, "tokens": [0]}),
            "patch heads": (self.acting(intervene.patch), {**at, "site": PROBS, "heads": [0]}),
            "mean": (self.acting(intervene.mean), at),
            "resample": (self.acting(intervene.resample), {**at, "seed": 0}),
            "attached": (entered(lambda pipe, given, **more: attached(pipe, *_several(given), **more)),
                         {"pipe": model.pipe, "given": [], "trace": SITE, "when": when, "rows": None,
                          "guidance": guidance.RegionPreserve(torch.ones(1), run.latents)}),
            "SweepRun": (SweepRun, {"prompt": "a cat", "seed": 0, "interventions": (move,),
                                    "companions": ()}),
            "sweep": (sweep, {"model": model, "runs": [SweepRun("a cat", 0, (move,))], "batch": 2,
                              "store": None, "progress": None, "steps": 1, "guidance": 2.0,
                              "negative": "red"}),
            "Strata": (Strata, {"log_snr": (-3.0, 3.0), "levels": 4, "draws": 1, "seed": 0, "stderr": 1.0,
                                "relative": 0.5, "most_draws": 2}),
            "Strata.middles": (Strata().middles, {"model": model}),
            "Strata.seeds": (Strata().seeds, {"picture": 0, "draw": 0, "levels": range(2)}),
            "Strata.reached": (Strata().reached, {"value": 1.0, "error": 0.1}),
            **self.bank(),
            **self.dictionaries(),
            "invert": (invert, {"model": model, "images": run.images, "prompts": ["a cat"], "steps": 2,
                                "guidance": 1.0, "progress": None}),
        }  # fmt: skip

    def bank(self) -> dict[str, Call]:
        """Valid calls of what predictions are reduced in."""
        given = {"model": self.model, "images": self.run.images, "conditions": {"none": "", "cat": "a cat"},
                 "pairs": [("cat", "none")], "estimator": "standard", "batch": 8, "store": None,
                 "progress": None, "levels": 4, "draws": 1, "seed": 0, "log_snr": (-3.0, 3.0)}  # fmt: skip
        made, pair = error_bank(**given), {"informed": "cat", "base": "none", "estimator": "orthogonal"}
        return {
            "error_bank": (error_bank, given),
            "ErrorBank.weights": (made.weights, {"weight": "v"}),
            "ErrorBank.densities": (made.densities, pair),
            "ErrorBank.map": (made.map, {**pair, "weight": "v"}),
        }

    def dictionaries(self) -> dict[str, Call]:
        """Valid calls of what sparse dictionaries are made and asked by."""
        model, few = self.model, probes.Learning(updates=1, rows=8)
        run: dict[str, Any] = {"prompts": ["a cat"], "seeds": [0], "batch": 2, "when": denoscope.When(),
                               "progress": None, "steps": 1}  # fmt: skip
        given = {"model": model, "site": SITE, "features": 4, "k": 2, "store": None, "kind": "state",
                 "source": None, "kernel": "position", "learning": few, **run}  # fmt: skip
        d = probes.train_dictionary(**given)
        store = probes.collect_activations(model, SITE, ["a cat"], seeds=[0], steps=1, store="activations")
        codes = d.encode(self.run[SITE])
        d.save("dictionary.safetensors")
        probes.write_sae_lens(d, "sae")
        one, two = {"site": SITE, "held": False}, {"steps": None}
        fields = {n: getattr(d, n) for n in ("channels", "encoder", "decoder", "encoder_bias", "input_bias",
                                             "output_bias", "k")}  # fmt: skip
        unbox = {"encoder.weight": torch.ones(4, 16), "decoder.weight": torch.ones(16, 4),
                 "pre_bias": torch.ones(16), "latent_bias": torch.ones(4)}  # fmt: skip
        Path("unbox").mkdir()
        save_file(unbox, "unbox/state_dict.safetensors")
        Path("unbox/config.json").write_text('{"k": 2, "d_model": 16}')

        def written(dictionary: Any, folder: Any) -> None:
            shutil.rmtree("sae out", ignore_errors=True)
            probes.write_sae_lens(dictionary, folder)

        return {
            "train_dictionary": (probes.train_dictionary, given),
            "collect_activations": (probes.collect_activations, {
                "model": model, "sites": [SITE], "store": "activations", "kernel": "position",
                "dtype": "float16", **run}),
            "Learning": (probes.Learning, {
                "selection": "top-k", "pre_bias": True, "conditioned": False, "whiten": False, "aux": 0.1,
                "updates": 2, "rows": 8, "rate": 0.1, "seed": 0}),
            "ActivationStore.open": (probes.ActivationStore.open, {"folder": "activations"}),
            "ActivationStore.n_rows": (store.n_rows, one),
            "ActivationStore.n_channels": (store.n_channels, {"site": SITE}),
            "ActivationStore.rows": (store.rows, {**one, "start": 0, "stop": 2}),
            "Channels": (probes.Channels, {"site": denoscope.Site(SITE), "axes": ("token", "channel")}),
            "Channels.of": (probes.Channels.of, {"model": model, "site": SITE, "kind": "state",
                                                 "source": None, "grid": None}),
            "Codes": (probes.Codes, {"values": codes.values, "features": codes.features,
                                     "starts": codes.starts, "shape": codes.shape, "width": 4}),
            "Codes.of": (codes.of, {"features": [0, 2]}),
            "Dictionary": (probes.Dictionary, {**fields, "threshold": None, "levels": (), "model": None,
                                               "record": {}}),
            "Dictionary.encode": (d.encode, {"x": self.run[SITE], **two}),
            "Dictionary.decode": (d.decode, {"codes": codes, **two}),
            "Dictionary.decode dense": (d.decode, {"codes": codes.dense(), **two}),
            "Dictionary.direction": (d.direction, {"feature": 0}),
            "Dictionary.edit": (self.acting(d.edit), {"features": [0], "scale": 2.0, "steps": [0],
                                                      "branch": "cond"}),
            "Dictionary.edit add": (d.edit, {"features": 0, "add": [1.0]}),
            "Dictionary.edit set": (d.edit, {"features": 0, "set": 1.0}),
            "Dictionary.transferred": (d.transferred, {"model": model}),
            "Dictionary.save": (d.save, {"path": "saved.safetensors"}),
            "Dictionary.load": (probes.Dictionary.load, {"path": "dictionary.safetensors"}),
            "Stability.share": (probes.stability(d, d).share, {"cosine": 0.5}),
            "stability": (probes.stability, {"a": d, "b": d}),
            "shipped_dictionary": (probes.shipped_dictionary, {"model": "emoji"}),
            "write_sae_lens": (written, {"dictionary": d, "folder": "sae out"}),
            "read_sae_lens": (probes.read_sae_lens, {"folder": "sae", "model": model, "site": SITE,
                                                     "source": None}),
            "read_sdxl_unbox": (probes.read_sdxl_unbox, {
                "folder": "unbox", "model": model, "site": "unet/mid.attn.0/resid.post"}),
        }  # fmt: skip

    def acting(self, make: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that makes an intervention, and lets it act in a run like the world's own."""

        def call(**kwargs: Any) -> Trace:
            return trace(self.model, ["a cat"], seeds=[0], steps=2, interventions=[make(**kwargs)])

        return call

    def edits(self) -> dict[str, Call]:
        model, edit, layer = self.model, self.edit, self.model.weights(LAYER)
        delta = {name: torch.zeros_like(p.detach()) for name, p in layer.items() if name.endswith("weight")}
        edit.save("edit.safetensors")
        changed = {name: p.detach() + 1 for name, p in layer.items()}
        save_file(changed, "foreign.safetensors")

        def folder(path: Any, **given: Any) -> None:
            shutil.rmtree("edited", ignore_errors=True)
            editing.export.pipeline(path=path, **given)

        def applied(model: Any) -> None:
            edit.apply(model)
            edit.revert(model)

        def reverted(model: Any) -> None:
            edit.apply(self.model)
            try:
                edit.revert(model)
            finally:
                if model is not self.model and model is not self.model.pipe:
                    edit.revert(self.model)

        keys = {"keys": torch.randn(2, 3), "residuals": {"a": torch.randn(2, 4)}, "ridge": 0.1,
                "weights": torch.ones(2), "preserve": torch.ones(1, 3),
                "covariance": torch.eye(3), "exact": torch.ones(1, 3)}  # fmt: skip
        text = {"model": model, "requests": {"cat": "red cat"}, "keep": ["a"], "settings": FEW}
        steering = Direction(SITE, torch.ones(16)).steer(0.5, denoscope.When(branch=None))
        own = editing.uce(self.model, {"cat": "dog"}, keep=(), settings=FEW)
        found = {"model": model, "requests": {"cat": "dog"}, "site": [LAYER.replace("self_attn", "mlp")],
                 "templates": ["a {}"], "keep": ["a"], "settings": editing.Search(steps=2),
                 "contrast": ["a red cook"], "captions": ["a cat", "a red dog"], "smooth": 0.5,
                 "progress": None}  # fmt: skip
        return {
            "Search": (editing.Search, {"objective": "contrast", "tokens": "subject", "steps": 3, "rate": 0.1,
                                        "stop": 0.9, "ball": 2.0, "decay": 0.0}),
            "planted": (editing.planted, {"kind": "fact", "model": "emoji"}),
            "planted_bias": (editing.planted_bias, {"model": "emoji-people"}),
            "refact": (editing.refact, found),
            "memit": (editing.memit, {**found, "weight": 2.0}),
            "uce": (editing.uce, {
                **text, "debias": {"dog": {"cat": 0.1}}, "hold": ["a red dog"], "weights": [SITE]}),
            "time": (editing.time, {**text, "hold": ["a red dog"], "weights": [SITE]}),
            "nullspace": (editing.nullspace, {**text, "hold": ["a red dog"], "weights": [SITE]}),
            "locoedit": (editing.locoedit, {**text, "hold": ["a red dog"], "weights": [SITE]}),
            "balance": (editing.balance, {
                "model": model, "wanted": {"dog": {"cat": 0.5}}, "label": lambda x: ["dog"] * len(x),
                "seeds": [0], "prompts": ["a {}"], "rounds": 2, "rate": 1.0, "tolerance": 0.05,
                "keep": ["a"], "weights": [SITE], "settings": FEW, "batch": 2, "progress": None, "steps": 1}),
            "SliderFit": (editing.SliderFit, {
                "rank": 1, "steps": 1, "rate": 0.01, "draws": 1, "most": 1.0, "space": "x0", "seeds": [0],
                "sampling_steps": 1, "guidance": 2.0, "seed": 1}),
            "slider": (editing.slider, {
                "model": model, "positive": ["a red cat"], "negative": ["a blue cat"], "neutral": ["a cat"],
                "sites": [SITE], "settings": editing.SliderFit(steps=1, seeds=[0], sampling_steps=1),
                "progress": None}),
            "InvariantFit": (editing.InvariantFit, {
                "penalty": 1.0, "rank": 1, "steps": 1, "rate": 0.01, "draws": 2, "levels": 2, "seed": 1}),
            "invariant": (editing.invariant, {
                "model": model, "images": torch.rand(4, 3, *model.size), "groups": torch.eye(2).repeat(2, 1),
                "prompts": ["a cat"] * 4, "sites": [SITE], "progress": None,
                "settings": editing.InvariantFit(rank=1, steps=1, draws=2, levels=2)}),
            "freeze": (editing.freeze, {"model": model, "interventions": [steering]}),
            "explain": (editing.explain, {"edit": own, "model": model}),
            "crosstalk": (editing.crosstalk, {
                "model": model, "edits": {"cat": own, "dog": edit}, "texts": {"cat": "a cat", "dog": "dog"},
                "progress": None}),
            "EditSettings": (editing.EditSettings, {
                "templates": ("a {}",), "tokens": "subject", "kept_tokens": "all", "held_tokens": "subject",
                "projections": "v", "ridge": 0.1, "ridge_scale": 1.0, "kept_weight": 1.0, "empty": "gap"}),
            "quickfix": (editing.quickfix, {
                "model": model, "requests": {"cat": "dog"}, "site": LAYER, "templates": ["a {}"],
                "tokens": "subject", "keep": ["a"], "ridge": 0.1, "bias": "subtract"}),
            "Edit": (editing.Edit, {"deltas": edit.deltas, "base": edit.base, "note": {}}),
            "Edit.of": (editing.Edit.of, {"model": model, "deltas": delta, "why": "to see"}),
            "Edit.applied": (entered(edit.applied), {"model": model}),
            "Edit.apply": (applied, {"model": model}),
            "Edit.revert": (reverted, {"model": model}),
            "Edit.save": (edit.save, {"path": "saved.safetensors"}),
            "Edit.load": (editing.Edit.load, {"path": "edit.safetensors"}),
            "read_foreign": (editing.read_foreign, {
                "model": model, "path": "foreign.safetensors", "component": "text_encoder"}),
            "lora": (editing.export.lora, {
                "model": model, "edit": edit, "path": "lora.safetensors", "rank": 2, "format": "kohya"}),
            "pipeline": (folder, {"model": model, "edit": edit, "path": "edited"}),
            "checkpoint": (editing.export.checkpoint, {
                "model": model, "edit": edit, "path": "checkpoint.safetensors"}),
            "solve": (ridge.solve, keys),
        }  # fmt: skip

    def directed(self) -> dict[str, Call]:
        """Valid calls of what finds and tries directions."""
        model, pair = self.model, {"positive": ["a red cat", "a red dog"], "negative": ["a cat", "a dog"]}
        run = {"model": model, "seeds": [0, 1], "steps": 1, "guidance": 1.0, "batch": 4, "progress": None}
        bright = {"metric": metrics.latent_distance(torch.zeros(model.latent_shape))}
        d = analysis.site_direction(site=SITE, **pair, **run)
        tried = {**run, "direction": d, "prompts": ["a cat"], "subject": "cat", "when": denoscope.When()}
        steered = analysis.evaluate_direction(**tried, metrics={"far": bright["metric"]})
        steered.save("steering.zarr")
        fit = {"steps": 1, "draws": 1, "scales": 1, "scale": (0.1, 1.0), "space": "eps", "rate": 0.1,
               "seeds": [0], "sampling_steps": 1, "guidance": 1.0, "seed": 0}  # fmt: skip
        return {
            "token_direction": (analysis.token_direction, {
                "model": model, **pair, "subject": ["cat", "dog"], "rows": ["subject", "end"],
                "method": "contrast", "neutral": None, "negative_subject": ["cat", "dog"],
                "progress": None}),
            "Learned": (analysis.Learned, fit),
            "read_delta": (analysis.read_delta, {
                "model": model, "delta": {"tokenwise_delta.oai_clip_vit_l": torch.ones(16)}}),
            "site_direction": (analysis.site_direction, {
                **run, **pair, "site": SITE, "method": "mean", "when": denoscope.When()}),
            "acting_steps": (analysis.acting_steps, {"direction": d, "share": 0.5}),
            "jacobian_directions": (analysis.jacobian_directions, {
                "model": model, "site": SITE, "prompts": ["a cat"], "seeds": [0], "step": 0, "rank": 1,
                "iterations": 1, "steps": 1}),
            "calibrated": (analysis.calibrated, {
                **tried, "direction": Direction("unet/out/eps", torch.eye(4)[0]), "unit": 0.5,
                "metric": lambda outcome: outcome.latents[:, 0].mean((1, 2)), "strengths": [1.0]}),
            "score_direction": (analysis.score_direction, {
                **run, **pair, **bright, "direction": d, "subject": ["cat", "dog"],
                "when": denoscope.When()}),
            "evaluate_direction": (analysis.evaluate_direction, {
                **tried, "metrics": {"far": bright["metric"]}, "strengths": [1.0],
                "beside": {"words": ["a dog"]}, "randoms": 1}),
            "steered": (denoscope.steered, {
                **tried, "strengths": [1.0], "measures": {"far": bright["metric"]}}),
            "DirectionScore": (analysis.DirectionScore, {
                "auc": 0.5, "auc_low": 0.4, "auc_high": 0.6, "effect": 0.0, "effect_low": 0.0,
                "effect_high": 0.0, "natural": 0.0, "metric": "far", "samples": 2}),
            "Steering": (analysis.Steering, {"data": steered.data}),
            "Steering.monotone": (steered.monotone, {"level": 0.9}),
            "Steering.to_frame": (steered.to_frame, {"level": 0.9}),
            "Steering.plot": (steered.plot, {"metric": str(steered.data["metric"].values[0])}),
            "Steering.changes": (steered.changes, {"strength": 1.0, "level": 0.9}),
            "Steering.save": (lambda path: steered.save(path), {"path": "steering.zarr"}),
            "Steering.load": (analysis.Steering.load, {"path": "steering.zarr"}),
            "cosine_table": (analysis.cosine_table, {"directions": {"d": d}}),
            "random_like": (analysis.random_like, {"direction": d, "seed": 1}),
            "where_said": (probes.where_said, {"words": "cat", "interventions": [d.steer(1.0)]}),
        }  # fmt: skip

    def analyses(self) -> dict[str, Call]:
        model, judge = self.model, self.judge
        mapped = {"words": ["cat"], "time": "mean", "by": "all", "size": (8, 8)}
        causal = {"model": model, "prompts": ["a cat"], "subject": "cat", "seeds": [0],
                  "metric": metrics.latent_distance(), "corruption": analysis.Noise(draws=1), "steps": 1,
                  "guidance": 1.0, "batch": 4, "store": None, "progress": None}  # fmt: skip
        text = {**causal, "encoder": "text_encoder", "kinds": ["mlp.out"], "layers": [0], "tokens": [1],
                "window": 1, "direct": False}  # fmt: skip
        denoiser = {**causal, "sites": [SITE], "windows": [[0]], "heads": None, "tokens": None,
                    "neighbours": 1, "direct": True, "source": "trajectory"}  # fmt: skip
        coords = {"site": ["unet/a/b", "unet/a/c"], "seed": range(4)}
        five = {"site": [f"unet/a/b{i}" for i in range(5)]}
        ranked = scores.Scores(xr.DataArray(np.eye(5, 4), {**five, "seed": range(4)}, ("site", "seed")))
        many = scores.Scores(xr.DataArray(np.eye(2, 4), coords, ("site", "seed")))
        found, free = analysis.trace_text(**text), {k: v for k, v in causal.items() if k != "store"}
        plan = analysis.plan_study(analysis.trace_text, **text)
        maps = analysis.word_maps(model, ["a cat"], seeds=[0], steps=1)
        tried = analysis.evaluation_prompts({"cat": "dog"}, ["a {}"])
        evaluate = {"model": model, "change": self.edit.applied, "prompts": tried, "judge": judge,
                    "seeds": [0], "steps": 1, "guidance": 1.0, "batch": 2, "store": None,
                    "progress": None}  # fmt: skip
        switched = analysis.decided(model, "a cat", "a dog", seeds=[0, 1], steps=2,
                                    metric=metrics.latent_distance())  # fmt: skip
        painted = analysis.lens(model, ["a cat"], seeds=[0], steps=1, metric=metrics.latent_distance())
        switched.save("decision.zarr")
        painted.save("lens.zarr")
        read = analysis.special_tokens(model, ["a cat"], seeds=[0], sites=[PROBS], steps=1)
        large = analysis.outlier_channels(model, ["a cat", "a dog"], seeds=[0], sites=[SITE], steps=1)
        same = {k: v for k, v in free.items() if k not in ("subject", "corruption")}
        two = {**same, "other": self.edit.applied, "sites": [SITE, "unet/in/text"], "windows": [[0]],
               "latents": "same"}  # fmt: skip
        compared = analysis.compare(**two)
        compared.save("comparison.zarr")
        effect, evaluated = found.indirect_effect, analysis.evaluate_edit(**evaluate)
        found.save("mediation.zarr")
        effect.save("scores.zarr")
        ones = {"values": evaluated.data["moved"], "over": ["seed"], "level": 0.9}
        return {
            "word_maps": (analysis.word_maps, {
                "model": model, "prompts": ["a cat"], **mapped, "seeds": [0], "steps": 1, "guidance": 2.0,
                "negative": "red", "sites": [PROBS], "when": denoscope.When(), "interventions": (),
                "on_step": None, "progress": None}),
            "maps_from_trace": (analysis.maps_from_trace, {"run": self.run, "model": model, **mapped}),
            **self.attributed(),
            "WordMaps": (analysis.WordMaps, {"maps": ones["values"], "run": self.run}),
            "WordMaps.plot": (maps.plot, {"sample": 0, "shared": True}),
            "Noise": (analysis.Noise, {"sd": 1.0, "draws": 1, "seed": 0}),
            "Swap": (analysis.Swap, {"words": "dog"}),
            "trace_text": (analysis.trace_text, text),
            "trace_denoiser": (analysis.trace_denoiser, denoiser),
            "StudyPlan.seconds": (plan.seconds, {"pace": 2.0, "single": 1.0, "picture": 0.1}),
            "seconds_per_picture": (analysis.seconds_per_picture, {"model": model, "samples": 2}),
            "rows_per_second": (analysis.rows_per_second, {
                "model": model, "samples": 2, "guidance": 1.0, "prompt": "a cat", "steps": 1}),
            "attribution_patching": (analysis.attribution_patching, {
                **{k: v for k, v in free.items() if k != "batch"}, "sites": [SITE]}),
            "agreement": (analysis.agreement, {"approximate": ranked, "true": ranked, "level": 0.9}),
            "lens": (analysis.lens, {
                "model": model, "prompts": ["a cat"], "seeds": [0], "metric": metrics.latent_distance(),
                "encoder": "text_encoder", "norm": "as read", "tokens": "words", "pooled": "final",
                "steps": 1,
                "guidance": 1.0, "batch": 4, "progress": None}),
            "decided": (analysis.decided, {
                "model": model, "without": "a cat", "with_": "a dog", "seeds": [0], "stride": 1, "batch": 4,
                "metric": metrics.latent_distance(), "concepts": ["dog"], "progress": None, "steps": 2,
                "guidance": 1.0}),
            **self.erased(),
            **self.told(),
            **self.asked(),
            **self.classified(),
            **self.fair(),
            "Decision": (analysis.Decision, {"data": switched.data}),
            "Decision.save": (switched.save, {"path": "decision.zarr"}),
            "Decision.load": (switched.load, {"path": "decision.zarr"}),
            "Lens.to_frame": (painted.to_frame, {"level": 0.9}),
            "Lens.save": (painted.save, {"path": "lens.zarr"}),
            "Lens.load": (painted.load, {"path": "lens.zarr"}),
            "Decision.total": (switched.total, {"level": 0.9}),
            "Decision.curves": (switched.curves, {"of": "score", "level": 0.9}),
            "Decision.times": (switched.times, {"of": "score", "level": 0.9, "n_resamples": 2, "seed": 0}),
            "Decision.changes": (switched.changes, {"level": 0.9}),
            "Decision.to_frame": (switched.to_frame, {"level": 0.9}),
            "Decision.plot": (switched.plot, {"of": "score"}),
            "locogen": (analysis.locogen, {
                "model": model, "prompts": ["a cat"], "others": ["a dog"], "seeds": [0], "widest": 1,
                "metric": metrics.latent_distance(), "settings": None, "pooled": False, "when": [0],
                "steps": 1, "guidance": 1.0, "batch": 8, "progress": None}),
            "compare": (analysis.compare, two),
            "compare_models": (denoscope.compare_models, {
                k: v for k, v in two.items() if k not in ("windows", "latents")}),
            "compare models": (analysis.compare, {**two, "other": model, "sites": [LAYER], "windows": None}),
            "Comparison": (analysis.Comparison, {"data": compared.data}),
            "Comparison.save": (compared.save, {"path": "comparison.zarr"}),
            "Comparison.load": (compared.load, {"path": "comparison.zarr"}),
            "Comparison.total": (compared.total, {"level": 0.9}),
            "Comparison.to_frame": (compared.to_frame, {"level": 0.9}),
            "Comparison.plot": (compared.plot, {"of": "difference"}),
            "path_effect": (analysis.path_effect, {
                **free, "senders": [SITE], "receivers": ["unet/out/eps", ["unet/mid.attn.0.0/mlp.out"]],
                "held": ["unet/mid.*/resnet.out"], "state": "clean"}),
            "head_ablation": (analysis.head_ablation, {
                **same, "sites": [PROBS.replace("probs", "z")], "by": "mean", "others": ["a dog"]}),
            "head_relevance": (analysis.head_relevance, {
                **{k: v for k, v in same.items() if k not in ("metric", "batch")}, "subject": "cat",
                "others": ["dog"], "sites": [PROBS.replace("probs", "z")], "when": [0]}),
            "locate": (analysis.locate, {
                "model": model, "prompts": ["a cat"], "subject": "cat", "method": "locogen", "seeds": [0],
                "metric": metrics.latent_distance(), "steps": 1}),
            "text_rows": (analysis.text_rows, {
                "model": model, "prompts": ["a cat"], "subject": "cat", "seeds": [0], "batch": 4,
                "metric": metrics.latent_distance(), "kept": {"end": ["end"]}, "steps": 1, "guidance": 1.0,
                "progress": None}),
            "special_tokens": (analysis.special_tokens, {
                "model": model, "prompts": ["a cat"], "seeds": [0], "sites": [PROBS], "steps": 1,
                "guidance": 1.0, "batch": 2, "progress": None}),
            "outlier_channels": (analysis.outlier_channels, {
                "model": model, "prompts": ["a cat"], "seeds": [0], "sites": [SITE], "steps": 1,
                "guidance": 1.0, "batch": 2, "progress": None}),
            "channels_ablated": (analysis.channels_ablated, {
                "model": model, "channels": large, "prompts": ["a cat", "a dog"], "seeds": [0], "k": 1,
                "metric": metrics.latent_distance(), "steps": 1, "guidance": 1.0, "batch": 4,
                "progress": None}),
            "Channels": (analysis.Channels, {"data": large.data}),
            "Channels.top": (large.top, {"site": SITE, "k": 1}),
            "Channels.step_means": (large.step_means, {"site": SITE}),
            "Channels.energies": (large.energies, {"site": SITE}),
            "SpecialTokens": (analysis.SpecialTokens, {"mass": read.mass, "value": read.value,
                                                       "contribution": read.contribution}),
            "SpecialTokens.to_frame": (read.to_frame, {"level": 0.9}),
            "Mediation": (analysis.Mediation, {"data": found.data}),
            "Mediation.total": (found.total, {"level": 0.9}),
            "Mediation.to_frame": (found.to_frame, {"level": 0.9}),
            "Mediation.causal": (found.causal, {"above": 0.5}),
            "Mediation.save": (found.save, {"path": "mediation.zarr"}),
            "Mediation.load": (found.load, {"path": "mediation.zarr"}),
            "Scores": (analysis.Scores, {"values": effect.values, "denominator": None}),
            "Scores.interval": (effect.interval, {"level": 0.9, "over": ["seed"]}),
            "Scores.grouped": (effect.grouped, {"groups": {"one": ["a cat"]}, "level": 0.9}),
            "Scores.confirmed": (many.confirmed, {"k": 1, "level": 0.9, "over": "seed"}),
            "race": (analysis.race, {
                "score": lambda sites, seeds: many, "sites": ["unet/a/b", "unet/a/c"],
                "seeds": [0, 1, 2, 3], "k": 1,
                "error": 0.05, "first": 4, "progress": None}),
            "Scores.top": (effect.top, {"k": 1}),
            "Scores.to_frame": (effect.to_frame, {"level": 0.9}),
            "Scores.plot": (effect.plot, {"label": "score"}),
            "Scores.save": (effect.save, {"path": "scores.zarr"}),
            "Scores.load": (effect.load, {"path": "scores.zarr"}),
            "load_store": (scores.load_store, {"path": "scores.zarr"}),
            "interval": (intervals.interval, ones),
            "proportion": (intervals.proportion, {**ones, "values": (ones["values"] > 2).astype(float)}),
            "EditEvaluation": (analysis.EditEvaluation, {"data": evaluated.data, "images": evaluated.images}),
            "EditEvaluation.summary": (evaluated.summary, {"level": 0.9}),
            "EditEvaluation.plot": (evaluated.plot, {"measure": "moved"}),
            "EvaluationPrompt": (analysis.EvaluationPrompt, {"kind": "efficacy", "template": "a {}",
                                                             "word": "cat", "wanted": "dog"}),
            "evaluate_edit": (analysis.evaluate_edit, evaluate),
            "evaluation_prompts": (analysis.evaluation_prompts, {
                "requests": {"cat": "dog"}, "efficacy": ["a {}"], "generality": ["the {}"],
                "neighbourhood": {"bird": ["a {}"]}}),
            "clip_score": (metrics.clip_score, {"judge": judge, "text": "a cat"}),
            "by_prompt": (metrics.by_prompt, {"metrics": {"a cat": metrics.latent_distance()}}),
            "text_fit": (metrics.text_fit, {"judge": judge, "text": "a cat"}),
            "judge_probability": (metrics.judge_probability, {"judge": judge, "attribute": "style",
                                                              "label": "noto"}),
            "judge_log_odds": (metrics.judge_log_odds, {"judge": judge, "attribute": "style",
                                                        "label": "noto"}),
            "latent_distance": (metrics.latent_distance, {"reference": self.run.latents}),
            "Case": (Case, {
                "prompt": "a cat", "about": "cat", "change_to": "dog", "model": "emoji", "seeds": 1,
                "steps": 1, "guidance": 1.0, "draws": 1, "judge": None}),
        }  # fmt: skip

    def attributed(self) -> dict[str, Call]:
        """Valid calls of what says where things are, and what a number owes to what."""
        model, images, level = self.model, self.run.images, self.model.step_at(log_snr=0.0)
        real = {"model": model, "prompts": ["a cat"], "seeds": [0], "images": images, "levels": [level],
                "when": denoscope.When(steps=[0]), "time": "mean", "by": "all", "size": (8, 8),
                "interventions": (), "progress": None}  # fmt: skip
        concepts = {**real, "concepts": ["cat", "dog"], "sites": [PROBS], "score": "softmax",
                    "within": "a {}"}  # fmt: skip
        made = {"images": None, "levels": None, "steps": 1, "guidance": 2.0, "negative": "red"}
        owed = {"model": model, "prompts": ["a cat"], "of": "fit", "to": "words", "seeds": [0],
                "method": "integrated_gradients", "images": images, "at": level, "against": "",
                "baseline": "zero", "words": ["cat"], "guidance": None, "points": 2, "orders": 2, "batch": 2,
                "progress": None}  # fmt: skip
        mask = torch.zeros(1, 16, 16, dtype=torch.bool)
        mask[:, :4, :9] = True
        scenes = [analysis.Placed(images[0], f"a {w}", (w,), mask) for w in ("cat", "dog", "red", "blue")]
        flat = {"flat": lambda model, scenes: [torch.rand(
            1, 4, 4, generator=torch.Generator().manual_seed(0)) for _ in scenes]}  # fmt: skip
        asked = {"model": model, "scenes": scenes, "methods": flat, "progress": None}
        maps, found = analysis.concept_maps(**concepts), analysis.attribute(**owed)
        far = metrics.latent_distance(self.run.latents + 1)
        scored, sane = analysis.evaluate_maps(**asked), analysis.sanity_checks(**asked)
        for result, path in ((maps, "concepts.zarr"), (found, "owed.zarr"), (scored, "places.zarr"),
                             (sane, "sane.zarr")):  # fmt: skip
            result.save(path)
        return {
            "word_maps pictures": (analysis.word_maps, {**real, "words": ["cat"], "sites": [PROBS]}),
            "concept_maps": (analysis.concept_maps, concepts),
            "concept_maps run": (analysis.concept_maps, {**concepts, **made, "settings": None}),
            "ConceptMaps": (analysis.ConceptMaps, {"data": maps.data}),
            "ConceptMaps.plot": (maps.plot, {"sample": 0, "shared": True}),
            "ConceptMaps.save": (maps.save, {"path": "concepts.zarr"}),
            "ConceptMaps.load": (analysis.ConceptMaps.load, {"path": "concepts.zarr"}),
            "attribute": (analysis.attribute, owed),
            "attribute run": (analysis.attribute, {
                **owed, "of": far, "to": [SITE], "images": None, "at": None, "steps": 1}),
            "attribute game": (analysis.attribute, {**owed, "of": analysis.Neuron(SITE, 0),
                                                    "method": "shapley", "baseline": None}),
            "Neuron": (analysis.Neuron, {"site": SITE, "channel": 0}),
            "Attribution": (analysis.Attribution, {"data": found.data}),
            "Attribution.to_frame": (found.to_frame, {"level": 0.9}),
            "Attribution.save": (found.save, {"path": "owed.zarr"}),
            "Attribution.load": (analysis.Attribution.load, {"path": "owed.zarr"}),
            "Placed": (analysis.Placed, {"picture": images[0], "caption": "a cat", "words": ("cat",),
                                         "masks": mask}),
            "Placed.of": (analysis.Placed.of, {"scene": zoo.data().scenes[0]}),
            "evaluate_maps": (analysis.evaluate_maps, asked),
            "score_maps": (analysis.score_maps, {"maps": {"a": [torch.rand(1, 4, 4)] * 4}, "scenes": scenes}),
            "MapEvaluation": (analysis.MapEvaluation, {"data": scored.data}),
            "MapEvaluation.to_frame": (scored.to_frame, {"level": 0.9}),
            "MapEvaluation.save": (scored.save, {"path": "places.zarr"}),
            "MapEvaluation.load": (analysis.MapEvaluation.load, {"path": "places.zarr"}),
            "sanity_checks": (analysis.sanity_checks, {**asked, "seed": 0}),
            "SanityChecks": (analysis.SanityChecks, {"data": sane.data}),
            "SanityChecks.to_frame": (sane.to_frame, {"level": 0.9}),
            "SanityChecks.save": (sane.save, {"path": "sane.zarr"}),
            "SanityChecks.load": (analysis.SanityChecks.load, {"path": "sane.zarr"}),
            "with_other_words": (analysis.with_other_words, {"scenes": scenes, "seed": 0}),
        }  # fmt: skip

    def told(self) -> dict[str, Call]:
        """Valid calls of what asks how much a text tells."""
        given = {"model": self.model, "images": self.run, "estimator": "standard", "batch": 8, "store": None,
                 "progress": None, "levels": 4, "stderr": 1e3}  # fmt: skip
        words = {**given, "prompt": "a red cat", "words": ["red", "cat"], "redundancy": "min",
                 "given_rest": True, "log_prior": None}  # fmt: skip
        one = analysis.mutual_information(**given, prompts="a cat")
        two = analysis.pid(**words)
        one.save("information.zarr")
        two.save("pid.zarr")
        return {
            "mutual_information": (analysis.mutual_information, {
                **given, "prompts": ["a red cat"], "given": "a cat"}),
            "Information": (analysis.Information, {"data": one.data}),
            "Information.plot": (one.plot, {"image": 0}),
            "Information.save": (one.save, {"path": "information.zarr"}),
            "Information.load": (analysis.Information.load, {"path": "information.zarr"}),
            "pid": (analysis.pid, words),
            "Decomposition": (analysis.Decomposition, {"data": two.data}),
            "Decomposition.plot": (two.plot, {"pair": "red + cat", "image": 0}),
            "Decomposition.save": (two.save, {"path": "pid.zarr"}),
            "Decomposition.load": (analysis.Decomposition.load, {"path": "pid.zarr"}),
        }  # fmt: skip

    def asked(self) -> dict[str, Call]:
        """Valid calls of what is asked of words."""
        few = {"model": self.model, "seeds": [0, 1], "steps": 1, "guidance": 1.0, "levels": 4, "draws": 1,
               "batch": 8, "store": None, "progress": None}  # fmt: skip
        biased = {**few, "subjects": ["cat", "dog", "mat"], "attributes": ["red"], "estimator": "standard",
                  "template": "a {attribute} {subject}", "pictures": ["named"],
                  "given_rest": True}  # fmt: skip
        kinds = {"one": [("a red cat", "red", "cat")], "two": [("a blue dog", "blue", "dog")]}
        paired = {**few, "kinds": kinds, "given_rest": True, "estimator": "standard"}  # fmt: skip
        left = {**few, "prompts": ["a red cat"], "words": {"a red cat": ["red", "cat"]},
                "swaps": {"red": "blue"}, "predictors": ["conditional information", "position"],
                "distances": {"mean": lambda a, b: (a - b).mean((1, 2, 3))}}  # fmt: skip
        counted = {"model": self.model, "prompts": {s: f"a {s}" for s in biased["subjects"]}, "batch": 8,
                   "label": lambda x: ["red"] * len(x), "attributes": ["red", "blue"], "seeds": [5, 6],
                   "progress": None, "steps": 1}  # fmt: skip
        bias, pairs = analysis.word_bias(**biased), analysis.pair_kinds(**paired)
        changes, counts = analysis.word_changes(**left), analysis.count_labels(**counted)
        calls: dict[str, Call] = {
            "word_bias": (analysis.word_bias, biased),
            "pair_kinds": (analysis.pair_kinds, paired),
            "word_changes": (analysis.word_changes, left),
            "count_labels": (analysis.count_labels, counted),
            "Counts.lean": (counts.lean, {"first": "red", "second": "blue"}),
            "WordBias.lean": (bias.lean, {"first": "red", "second": "red"}),
            "WordBias.correlations": (bias.correlations, {
                "shares": counts, "contrast": None, "level": 0.9, "n_resamples": 10, "seed": 0}),
            "WordBias.plot": (bias.plot, {"shares": counts, "attribute": "red", "measure": "redundancy",
                                          "pictures": "named"}),
            "PairKinds.summary": (pairs.summary, {"level": 0.9}),
            "PairKinds.contrasts": (pairs.contrasts, {"level": 0.9}),
            "WordChanges.correlations": (changes.correlations, {"less": "position", "level": 0.9}),
        }  # fmt: skip
        for found in (bias, pairs, changes, counts):
            name, path = type(found).__name__, f"{type(found).__name__}.zarr"
            found.save(path)
            calls |= {name: (type(found), {"data": found.data}), f"{name}.save": (found.save, {"path": path}),
                      f"{name}.load": (type(found).load, {"path": path})}  # fmt: skip
            if not isinstance(found, analysis.WordChanges):
                calls[f"{name}.to_frame"] = (found.to_frame, {"level": 0.9})
        return calls

    def classified(self) -> dict[str, Call]:
        """Valid calls of what chooses among texts."""
        shared = {"model": self.model, "images": torch.rand(4, 3, 16, 16), "prompts": ["a cat", "a dog"],
                  "log_snr": (-4.0, 4.0), "levels": 4, "draws": 3, "seed": 0, "batch": 32, "store": None,
                  "progress": None}  # fmt: skip
        asked = {**shared, "weights": [1.0, 1.0, 0.5, 0.5], "prune": 0.1, "shared": True}
        labels = analysis.classify(**shared).chosen  # which this model can learn
        learned = {**shared, "labels": labels, "folds": 2}
        found, weights = analysis.classify(**asked), analysis.learn_weights(**learned)
        found.save("classified.zarr")
        weights.save("level-weights.zarr")
        return {
            "classify": (analysis.classify, asked),
            "Classification": (analysis.Classification, {"data": found.data}),
            "Classification.right": (found.right, {"labels": labels}),
            "Classification.accuracy": (found.accuracy, {"labels": labels, "level": 0.9}),
            "Classification.save": (found.save, {"path": "classified.zarr"}),
            "Classification.load": (analysis.Classification.load, {"path": "classified.zarr"}),
            "learn_weights": (analysis.learn_weights, learned),
            "StepWeights": (analysis.StepWeights, {"data": weights.data}),
            "StepWeights.save": (weights.save, {"path": "level-weights.zarr"}),
            "StepWeights.load": (analysis.StepWeights.load, {"path": "level-weights.zarr"}),
            "self_bench": (analysis.self_bench, {
                "model": self.model, "tasks": {"animal": ["a cat", "a dog"]}, "seeds": [0], "judge": light,
                "steps": 1, "guidance": 1.0, "weights": "nats", "levels": 4, "draws": 1, "batch": 4,
                "store": None, "progress": None}),
        }  # fmt: skip

    def featured(self, early: Any) -> dict[str, Call]:
        """Valid calls of what looks at features one by one, and at bias and circuits by them."""
        late = probes.train_dictionary(self.model, LATE, ["a cat"], seeds=[0], features=6, k=6, steps=1,
                                       learning=probes.Learning(updates=1, rows=8))  # fmt: skip
        asked = {"model": self.model, "source": early, "target": late, "prompt": "a red cat", "word": "red",
                 "seed": 0, "step": 0, "features": 2, "steps": 1, "guidance": 1.0}  # fmt: skip
        found = analysis.trace_circuit(**asked)
        found.save("circuit.zarr")
        few = {"model": self.model, "dictionary": early, "batch": 8, "progress": None, "steps": 1}
        return {
            "trace_circuit": (analysis.trace_circuit, asked),
            "Circuit.save": (found.save, {"path": "circuit.zarr"}),
            "Circuit.load": (analysis.Circuit.load, {"path": "circuit.zarr"}),
            "browse_features": (denoscope.browse_features, {
                **few, "prompts": ["a cat"] * 12, "seeds": range(12), "features": 2, "judge": None}),
            "study_bias": (denoscope.study_bias, {
                **few, "dictionary": doubled(self.model, SITE), "classes": ["red", "dog"],
                "prompt": "a cat", "about": "cat", "seeds": range(8),
                "label": lambda x: (["red", "dog"] * 8)[: len(x)], "judge": self.judge, "features": 2}),
        }  # fmt: skip

    def fair(self) -> dict[str, Call]:
        """Valid calls of what finds a bias, and takes it out."""
        model, few = self.model, {"prompts": ["a cat"] * 3, "seeds": [0, 1, 2], "batch": 4, "progress": None}
        d = probes.train_dictionary(model, SITE, ["a cat"], seeds=[0], features=6, k=2, steps=1,
                                    learning=probes.Learning(updates=1, rows=8))  # fmt: skip
        pairs = {"red": ["a red cat", "a red dog"], "blue": ["a blue cat", "a blue dog"]}
        found = analysis.bias_features(model, d, pairs, seeds=[0, 1], steps=1)
        name = max(pairs, key=lambda c: len(found.top(c)))
        chosen, half = {"features": 2, "by": "contrast"}, {"red": 0.5, "blue": 0.5}
        scored = {
            "model": model,
            "dictionary": d,
            "found": found,
            "name": name,
            **few,
            "features": 1,
            "metric": metrics.latent_distance(),
            "strength": 1.0,
            "branch": "cond",
            "steps": 1,
        }
        compared = {
            "model": model,
            "ways": {"nothing": [()] * 3},
            **few,
            "label": lambda x: ["red"] * len(x),
            "target": half,
            "judge": self.judge,
            "reference": None,
            "steps": 1,
        }
        drawn = {"level": 0.9, "n_resamples": 5, "seed": 0}
        scores, made = analysis.score_features(**scored), analysis.compare_mitigations(**compared)
        found.save("found.zarr")
        scores.save("feature-scores.zarr")
        sorted_ = analysis.latent_groups(torch.arange(9.0), groups=2, steps=1)
        sorted_.save("groups.zarr")
        made.save("made.zarr")
        turn = {"model": model, "push": lambda s: [()] * 3, "share": ("red", 1.0), **few, "most": 1.0,
                "rounds": 1, "label": compared["label"], "steps": 1}  # fmt: skip
        return {
            "bias_features": (analysis.bias_features, {
                "model": model, "dictionary": d, "classes": ["red", "blue"], "prompts": ["a cat"] * 4,
                "seeds": range(4), "label": lambda x: (["red", "blue"] * 2)[: len(x)],
                "when": denoscope.When(), "batch": 4, "progress": None, "steps": 1, "guidance": 1.0}),
            "bias_features pairs": (analysis.bias_features, {
                "model": model, "dictionary": d, "classes": pairs, "seeds": [0, 1], "steps": 1}),
            "BiasFeatures.accuracy": (found.accuracy, {"level": 0.9}),
            "BiasFeatures.aucs": (found.aucs, {"name": name}),
            "BiasFeatures.check": (found.check, {"dictionary": d}),
            "BiasFeatures.top": (found.top, {"name": name, **chosen}),
            "BiasFeatures.towards": (found.towards, {
                "dictionary": d, "name": name, "strength": 0.5, "how": "scale", "steps": [0],
                "branch": "cond", "features": 2, "by": "attribution"}),
            "BiasFeatures.mean_difference": (found.mean_difference, {
                "name": name, "strength": 0.5, "steps": [0], "branch": None}),
            "BiasFeatures.save": (found.save, {"path": "found.zarr"}),
            "BiasFeatures.load": (analysis.BiasFeatures.load, {"path": "found.zarr"}),
            "score_features": (analysis.score_features, scored),
            "FeatureScores.to_frame": (scores.to_frame, drawn),
            "FeatureScores.save": (scores.save, {"path": "feature-scores.zarr"}),
            "FeatureScores.load": (analysis.FeatureScores.load, {"path": "feature-scores.zarr"}),
            "compare_mitigations": (analysis.compare_mitigations, compared),
            "Mitigation.to_frame": (made.to_frame, drawn),
            "Mitigation.shares": (made.shares, {"level": 0.9}),
            "Mitigation.save": (made.save, {"path": "made.zarr"}),
            "Mitigation.load": (analysis.Mitigation.load, {"path": "made.zarr"}),
            "calibrated_strength": (analysis.calibrated_strength, turn),
            "latent_groups": (analysis.latent_groups, {
                "losses": torch.arange(9.0), "groups": 2, "zero_weight": 0.1, "steps": 1, "rate": 0.01,
                "seed": 1}),
            "LatentGroups.save": (sorted_.save, {"path": "more-groups.zarr"}),
            "LatentGroups.load": (analysis.LatentGroups.load, {"path": "groups.zarr"}),
            "LatentGroups.to_frame": (sorted_.to_frame, {
                "labels": ["a", "b", None] * 3, "level": 0.9, "n_resamples": 20, "seed": 1}),
            "fairness_discrepancy": (analysis.fairness_discrepancy, {
                "labels": ["red", "blue"], "target": half, **drawn}),
            "fairness_discrepancy rows": (analysis.fairness_discrepancy, {
                "labels": torch.tensor([[0.5, 0.5]])}),
            **self.featured(d),
            "bias_score": (analysis.bias_score, {
                "labels": {"a cat": ["red", "blue"]}, "classes": ["red", "blue"], **drawn}),
            "stratified": (analysis.stratified, {"target": half, "samples": 4, "seed": 0}),
        }  # fmt: skip

    def erased(self) -> dict[str, Call]:
        """Valid calls of what asks whether something is gone."""
        sheet = {"model": self.model, "changed": self.edit.applied, "about": "cat", "instead": "dog",
                 "judge": light, "seeds": [0, 1], "steps": 1, "guidance": 1.0, "template": "a {}",
                 "probes": ["embedding"], "budget": analysis.Budget(steps=(1,), tokens=(1,), batch=1),
                 "wordings": {"red": "a red {}"}, "pictures": torch.rand(2, 3, 16, 16),
                 "never": {"cook": torch.rand(1, 3, 16, 16)}, "unrelated": ["a house"], "others": ["cook"],
                 "batch": 2, "progress": None}  # fmt: skip
        few = {"model": self.model, "changed": self.edit.applied, "retained": self.edit.applied,
               "prompts": ["a cat"], "kept": ["a dog"], "second": self.edit.applied, "seeds": [0, 1],
               "pictures": None, "bins": 1, "steps": 1, "guidance": 1.0, "progress": None}  # fmt: skip
        tried = analysis.robustness(**{**sheet, "probes": ["clean_embeddings"]})
        deep = analysis.depth(**few)
        tried.save("sheet.zarr")
        deep.save("depth.zarr")
        return {
            "Budget": (analysis.Budget, {
                "steps": (1, 2), "tokens": (1,), "starts": ("about",), "rate": 0.1, "tuning": (1,),
                "tuning_rate": 0.1, "batch": 2, "pictures": 2, "best_of": 2}),
            "Budget.rows": (analysis.Budget().rows, {"fits": 2}),
            "robustness": (analysis.robustness, sheet),
            "Robustness": (analysis.Robustness, {"data": tried.data}),
            "Robustness.to_frame": (tried.to_frame, {"level": 0.9}),
            "Robustness.plot": (tried.plot, {"level": 0.9}),
            "Robustness.bars": (tried.bars, {"level": 0.9}),
            "Robustness.save": (tried.save, {"path": "sheet.zarr"}),
            "Robustness.load": (tried.load, {"path": "sheet.zarr"}),
            "depth": (analysis.depth, few),
            "Depth": (analysis.Depth, {"data": deep.data}),
            "Depth.to_frame": (deep.to_frame, {
                "of": "error", "level": 0.9, "n_resamples": 3, "seed": 0, "tolerance": 0.1}),
            "Depth.cuts": (deep.cuts, {"of": "direction", "tolerance": 0.1}),
            "Depth.maps": (deep.maps, {"source": "edited"}),
            "Depth.plot": (deep.plot, {"source": "edited"}),
            "Depth.save": (deep.save, {"path": "depth.zarr"}),
            "Depth.load": (deep.load, {"path": "depth.zarr"}),
        }  # fmt: skip


def light(images: torch.Tensor, texts: Any) -> torch.Tensor:
    """A judge that looks at the brightness of pictures."""
    return torch.stack([(images.mean((1, 2, 3)) - i / 9).abs() for i in range(len(texts))], 1)


def judged(images: torch.Tensor) -> dict[str, Call]:
    """A valid call of each public function of judges in transformers' format."""
    known = {"animal": ["a cat", "a dog"]}
    clip_folder, folder = save_tiny_clip(Path("clip")), save_tiny_classifier(Path("classifier"))
    place: dict[str, Any] = {"device": "cpu", "dtype": torch.float32}
    clip, classifier = judges.clip_judge(clip_folder, known), judges.classifier_judge(folder)
    texts, animal = {"texts": ["a cat"]}, {"images": images, "attribute": "animal"}
    label = {"images": images, "attribute": "label"}
    return {
        "clip_judge": (judges.clip_judge, {"source": clip_folder, "vocabulary": known, **place}),
        "ClipJudge.similarity": (clip.similarity, {"images": images, "others": ["a cat"]}),
        "ClipJudge.similarity pictures": (clip.similarity, {"images": images, "others": images}),
        "ClipJudge.clip_score": (clip.clip_score, {"images": images, **texts}),
        "ClipJudge.features": (clip.features, {"images": images}),
        "ClipJudge.check": (clip.check, texts),
        "ClipJudge.labels": (clip.labels, {"attribute": "animal"}),
        "ClipJudge.probabilities": (clip.probabilities, animal),
        "ClipJudge.probability": (clip.probability, {**animal, "label": "a dog"}),
        "classifier_judge": (judges.classifier_judge, {"source": folder, **place}),
        "ClassifierJudge.similarity": (classifier.similarity, {"images": images, **texts}),
        "ClassifierJudge.check": (classifier.check, texts),
        "ClassifierJudge.label_of": (classifier.label_of, {"text": "a cat"}),
        "ClassifierJudge.labels": (classifier.labels, {"attribute": "label"}),
        "ClassifierJudge.probabilities": (classifier.probabilities, label),
        "ClassifierJudge.probability": (classifier.probability, {**label, "label": "dog"}),
        "callable_judge": (judges.callable_judge, {"function": clip.similarity, "name": "mine"}),
        "any_judge": (judges.any_judge, {"source": folder, **place}),
    }


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The world, in a folder of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("world"))
        yield World()


OTHER = tiny_sd()
WRONG: Mapping[str, Any] = {
    "None": None,
    "True": True,
    "0": 0,
    "-1": -1,
    "3": 3,
    "2**70": 2**70,
    "-2**70": -(2**70),
    "0.5": 0.5,
    "-0.5": -0.5,
    "1e300": 1e300,
    "nan": float("nan"),
    "inf": float("inf"),
    "-inf": -float("inf"),
    "no text": "",
    "a text": "nonsense",
    "braces": "{} {}",
    "a site": SITE,
    "no site": "unet/nowhere.3/mlp.out",
    "a long text": "cat " * 500,
    "bytes": b"bytes",
    "no list": [],
    "texts": ["a", "b"],
    "numbers": [3, 1],
    "negative numbers": [-1],
    "huge numbers": [2**70, 2**70],
    "broken numbers": [0.5, float("nan")],
    "None in a list": [None],
    "a set": {1},
    "a range": range(4),
    "an array": np.arange(2),
    "an array of numbers": np.array([[0.5, 1.5]]),
    "an integer of numpy": np.int64(-3),
    "no mapping": {},
    "a mapping": {"a": "b"},
    "a mapping of None": {"cat": None},
    "a mapping of numbers": {1: 2},
    "a path to nothing": Path("does/not/exist"),
    "an object": object(),
    "a pipeline": OTHER,
    "a number of torch": torch.tensor(0.5),
    "a tensor of a wrong shape": torch.ones(2, 3, 5),
    "a tensor of NaN": torch.full((1, 4, 8, 8), float("nan")),
    "a tensor of integers": torch.ones(16, dtype=torch.int64),
    "an empty tensor": torch.ones(0),
    "a complex tensor": torch.ones(1, 4, 8, 8, dtype=torch.complex64),
    "pictures of a wrong size": torch.rand(1, 3, 24, 24),
    "a dtype": torch.int8,
    "a Site": denoscope.Site(SITE),
    "a When": denoscope.When(steps=[7]),
    "a Guidance": CFG(3.0, rescale=0.5),
    "a Step": denoscope.Step(3, 11.0, 0.2),
    "a list of Sites": [denoscope.Site(LAYER)],
    "an intervention": [intervene.zero(SITE)],
}
HOW = ("itself", "in its place in a list", "in its place in a mapping")


NO_FUNCTION = {"a pipeline"}  # which can be called: what it then says is its own
CALLED = {"change", "changed", "fn", "judge", "label", "methods", "metric", "of", "on_step", "other",
          "progress", "push", "reduce", "retained", "second"}  # fmt: skip


def spoilt(value: Any, wrong: Any, how: str) -> Any:
    """Return the wrong value, or the given one with the wrong value inside."""
    if how == HOW[1] and isinstance(value, list | tuple):
        return [wrong, *value[1:]]
    if how == HOW[2] and isinstance(value, dict) and value:
        return dict.fromkeys(value, wrong)
    return wrong


def random_states() -> list[Any]:
    """Return all global random states, as they compare."""
    name, keys, *rest = np.random.get_state()  # noqa: NPY002 - the global one is meant
    return [torch.get_rng_state().tolist(), (name, keys.tolist(), *rest), random.getstate()]


class Walk:
    """Makes calls with one wrong argument, and says what is wrong afterwards."""

    def __init__(self, world: World) -> None:
        self.world, self.watch = world, Watch(world.model)

    def __call__(self, name: str, argument: str, wrong: str, how: str) -> str:
        """Return the fault, or nothing."""
        if argument in CALLED and wrong in NO_FUNCTION:
            return ""
        function, arguments = self.world.calls[name]
        given = {**arguments, argument: spoilt(arguments[argument], WRONG[wrong], how)}
        said = f"{name}({argument}={wrong}, {how})"
        states = random_states()
        try:
            function(**given)
        except (DenoscopeError, OSError):
            pass
        except BaseException as error:
            return f"{said}: {type(error).__name__}: {str(error)[:160]}"
        if changes := self.watch.changes(thorough=False):
            self.watch.reset()
            return f"{said} changed the model: {changes[:3]}"
        if states != random_states():
            return f"{said} moved a global random state"
        return ""

    def ways(self) -> list[tuple[str, str]]:
        """Return each argument of each call."""
        return [(name, argument) for name, (_, given) in self.world.calls.items() for argument in given]


@pytest.fixture(scope="module")
def walk(world: World) -> Walk:
    """The walk through the world."""
    return Walk(world)


def test_every_public_function_has_a_valid_call(world: World) -> None:
    names = {name for name, value in public().items() if _asks(value)}
    assert names - set(world.calls) - set(EXCEPTIONS) == set(), "give each a call, or a reason"
    assert set(EXCEPTIONS) <= names, "a reason for what is not there"
    assert not set(EXCEPTIONS) & set(world.calls)


def _asks(value: Any) -> bool:
    return (
        inspect.isclass(value) or not inspect.isfunction(value) or bool(inspect.signature(value).parameters)
    )


def test_the_valid_calls_are_valid(world: World, walk: Walk) -> None:
    for name, (function, given) in world.calls.items():
        try:
            function(**given)
        except FileExistsError:  # saved when the world was made
            assert name.endswith(".save")
        except FileNotFoundError:
            assert name == "read_judge"
        assert not walk.watch.changes(), name


def wander(walk: Walk, data: st.DataObject) -> None:
    """Make one call of the walk, wherever it leads."""
    name, argument = data.draw(st.sampled_from(walk.ways()))
    wrong, how = data.draw(st.sampled_from(sorted(WRONG))), data.draw(st.sampled_from(HOW))
    fault = walk(name, argument, wrong, how)
    assert not fault, fault


@hypothesis.settings(max_examples=250, deadline=None)
@hypothesis.given(data=st.data())
def test_a_wrong_argument_is_told_and_leaves_no_trace(walk: Walk, data: st.DataObject) -> None:
    wander(walk, data)


def test_a_text_that_is_no_choice_is_told(world: World) -> None:
    """A misspelt choice is never taken for another one."""
    tried = 0
    for name, (function, given) in world.calls.items():
        for key, hint in _hints(inspect.unwrap(function)).items():
            if choices(hint):
                tried += 1
                with pytest.raises(DenoscopeError, match="nonesuch"):
                    function(**{**given, key: "nonesuch"})
                    pytest.fail(f"{name} takes {key}='nonesuch'")
    assert tried > 60


def choices(hint: Any) -> list[str]:
    """The texts that an annotation allows."""
    if get_origin(hint) is Literal:
        return [c for c in get_args(hint) if isinstance(c, str)]
    union = get_origin(hint) in (Union, UnionType)
    return [c for some in get_args(hint) for c in choices(some)] if union else []


@pytest.mark.stress
@hypothesis.settings(max_examples=5000, deadline=None)
@hypothesis.given(data=st.data())
def test_five_thousand_wrong_arguments(walk: Walk, data: st.DataObject) -> None:
    wander(walk, data)


def test_the_walk_sees_what_is_not_ours_and_what_is_left(world: World) -> None:
    """A walk that found nothing because it sees nothing would be worth nothing."""

    def foreign(x: Any) -> None:
        raise AttributeError("'int' object has no attribute 'strip'")

    def hooked(x: Any) -> None:
        world.model.pipe.unet.conv_in.register_forward_hook(print)

    walk = Walk(world)
    world.calls |= {"foreign": (foreign, {"x": 1}), "hooked": (hooked, {"x": 1})}
    world.calls["random"] = (lambda x: torch.rand(1), {"x": 1})
    try:
        assert "AttributeError: 'int' object" in walk("foreign", "x", "0", "itself")
        assert "changed the model" in walk("hooked", "x", "0", "itself")
        assert "random state" in walk("random", "x", "0", "itself")
    finally:
        world.model.pipe.unet.conv_in._forward_hooks.clear()
        for name in ("foreign", "hooked", "random"):
            del world.calls[name]
    walk.watch.reset()
    assert walk("When", "rows", "None", "itself") == ""


# by name ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [None, ["dog", "bird"], 3])
def test_a_target_that_is_no_text_is_told(tiny: Any, target: Any) -> None:
    with pytest.raises(TypeError, match=r"requests\['cat'\] is .*; it is a text"):
        editing.quickfix(tiny, {"cat": target})


def test_a_pipeline_where_a_model_is_asked_for_is_told() -> None:
    calls = [
        lambda: editing.quickfix(OTHER, {"cat": "dog"}),  # type: ignore[arg-type]
        lambda: trace(OTHER, ["a cat"], seeds=[0]),  # type: ignore[arg-type]
        lambda: sweep(OTHER, [SweepRun("a cat", 0)]),  # type: ignore[arg-type]
        lambda: analysis.word_maps(OTHER, ["a cat"], seeds=[0]),
        lambda: denoscope.Edit.of(OTHER, {}),  # type: ignore[arg-type]
    ]
    for call in calls:
        with pytest.raises(TypeError, match=r"open one by denoscope.load\(pipe\)"):
            call()


def test_weights_of_inference_mode_are_told() -> None:
    with torch.inference_mode():
        model = load(tiny_sd())
    edit = editing.quickfix(model, {"cat": "dog"})
    with pytest.raises(ValueError, match=r"made under torch.inference_mode\(\), so nothing can be written"):
        edit.apply(model)
    with pytest.raises(ValueError, match="inference_mode"), edit.applied(model):
        pass
    with torch.inference_mode(), edit.applied(model):
        assert not torch.equal(trace(model, ["a cat"], seeds=[0], steps=1).latents, torch.zeros(1, 4, 8, 8))


def test_a_second_encoder_that_was_dropped_is_told() -> None:
    flux = tiny_flux()
    flux.text_encoder_2 = flux.tokenizer_2 = None
    with pytest.raises(LookupError, match=r"has no text_encoder_2 now.*give Prompts"):
        editing.quickfix(load(flux), {"cat": "dog"})


@pytest.mark.parametrize("steps", ["20", 2.5, [3], 0, -1, 10**6])
def test_steps_that_cannot_be_are_told(tiny: Any, steps: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="steps is") as caught:
        trace(tiny, ["a cat"], seeds=[0], steps=steps)
    assert isinstance(caught.value, DenoscopeError)


def test_prompts_of_other_lengths_and_negatives_in_a_list(tiny: Any) -> None:
    short, more = tiny.encode(["a cat", "a dog"])
    long = dataclasses.replace(
        short, embeds=torch.cat([short.embeds, more.embeds]), tokens=short.tokens * 2, spans=short.spans * 2
    )
    with pytest.raises(ValueError, match=r"have \[32, 64\] tokens; set long_prompts='chunks'"):
        trace(tiny, [long, short], seeds=[0, 1], steps=1)
    run = trace(tiny, ["a cat", "a dog"], seeds=[0, 1], steps=1, negative=["red", "blue"])
    assert run.about["negative"] == ["red", "blue"]


def test_a_trace_of_some_rows_is_a_dataset(tiny: Any) -> None:
    run = trace(tiny, ["a", "b"], seeds=[3, 4], steps=1, sites=SITE, when=denoscope.When(rows=(1,)))
    assert run.to_xarray()["seed"].values.tolist() == [4]


@pytest.mark.parametrize("name", ["emoji", "emoji-dit", "emoji-mmdit", "emoji-people"])
def test_opening_moves_no_global_random_state(name: str) -> None:
    before = random_states()
    load(name)
    judges.read_judge(zoo.folder("emoji"))
    assert random_states() == before
