"""Sweeps in a store: equal to the bit, gone on with where they stopped, the same key everywhere."""

from dataclasses import replace

import pytest
import torch

from denoscope.analysis.mediation.choice import Piece
from denoscope.models.errors import StateError, UsageError
from denoscope.models.run.context import When
from denoscope.models.run.sampling import Sampling
from denoscope.models.store.studies import read_studies
from denoscope.probes.intervene import Intervention, Spec, intervening, patch, scale
from denoscope.probes.sweep import batching
from denoscope.probes.sweep.keeping import Keeper, texts_of
from denoscope.probes.sweep.partition import SweepRun, partition
from denoscope.probes.sweep.sweeping import _encode, sweep

SITE = "unet/mid.attn.0.0/mlp.out"
RUNS = [
    SweepRun("a cat", 0),
    *(SweepRun("a cat", s, (scale(SITE, 1.5 + s, When({s % 2})),)) for s in range(5)),
]
HOW = {"steps": 2, "batch": 2}


def test_stopped_anywhere_it_goes_on_to_the_bit(tiny, tmp_path, monkeypatch):
    plain = sweep(tiny, RUNS, **HOW)
    whole = sweep(tiny, RUNS, **HOW, store=tmp_path / "whole")
    assert torch.equal(whole.latents, plain.latents) and whole.rows == plain.rows
    real, left = batching.SweepExecutor._sample, [0]

    def stopping(self, *args):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return real(self, *args)

    monkeypatch.setattr(batching.SweepExecutor, "_sample", stopping)
    for allowed in (1, 2, 3):
        left[0] = allowed
        with pytest.raises(KeyboardInterrupt):
            sweep(tiny, RUNS, **HOW, store=tmp_path / "s")
    left[0] = 100
    found = sweep(tiny, RUNS, **HOW, store=tmp_path / "s")
    assert torch.equal(found.latents, plain.latents) and found.rows == plain.rows
    left[0] = 0
    again = sweep(tiny, RUNS, **HOW, store=tmp_path / "s")  # runs nothing
    assert torch.equal(again.latents, plain.latents) and again.rows == plain.rows
    (record,) = read_studies(tmp_path / "s")
    assert record.done and record.rows == plain.rows and record.id == read_studies(tmp_path / "whole")[0].id


def test_what_cannot_be_known_is_refused(tiny, tmp_path):
    own = SweepRun("a cat", 0, (Intervention(SITE, lambda x, _: 2 * x),))
    with pytest.raises(UsageError, match=r"is a function.*spec=Spec\('.*lambda>', .*Or leave out store"):
        sweep(tiny, [own], **HOW, store=tmp_path / "s")
    assert not (tmp_path / "s").exists()
    with pytest.raises(StateError, match="a store cannot know them"), intervening(tiny, scale(SITE, 2.0)):
        sweep(tiny, RUNS[:1], **HOW, store=tmp_path / "s")


def test_a_key_is_the_same_everywhere(tiny, monkeypatch):
    """Written down: on fixed content, with nothing of the machine in it."""
    monkeypatch.setattr("denoscope.models.store.store.NUMERICS", 1)
    values = torch.arange(4.0)
    add = Intervention(SITE, lambda x, _: x, When({1}), Spec("add", {"values": values}))
    runs = [SweepRun("a cat", 0), SweepRun("a cat", 0, (add,)), SweepRun("a dog", 1, (add,))]
    keeper = Keeper(tiny, {"weights": "fixed"}, {})
    assert keeper.keys(partition(runs, 2, ("uncond", "cond"))) == KNOWN


KNOWN = [
    "d203806bcf4cd4eca95514755d0282f26d66c98f1b88aaec2b932ba894c74b94",
    "99e0625edd511c7e2156cf9de6444965bc4595ffdef3bbc4536fa1dffce89346",
]


COUNTED = {
    "plain": [SweepRun("a cat", 0), SweepRun("a dog", 1)],
    "all steps": [SweepRun("a cat", 0, (scale(SITE, 2.0),))],
    "windows": RUNS[1:],
    "plain, windows": [*RUNS, SweepRun("a dog", 3, (scale(SITE, 2.0, When([2])),))],
    "twice the same": [*RUNS, *RUNS],
    "companions": [SweepRun("a cat", 0, (Piece(When([1, 2])).copied(SITE, 1, 0),), ("a dog",))] * 2,
    "shared": [SweepRun(text, 0, (Piece(When([k, 2])).copied(SITE, 1, 0),), ("a dog",), shared=True)
               for text in ("a cat", "a cow") for k in (0, 1)],
    "uncond": [SweepRun("a cat", 0, (scale(SITE, 2.0, When([s], branch=b)),))
               for s in (0, 2) for b in ("uncond", None, "cond")],
}  # fmt: skip


@pytest.mark.parametrize("name", COUNTED)
def test_rows_are_known_before_it_runs(tiny, name):
    guidance = 1.0 if name == "windows" else 3.0
    how, branches = {"steps": 3, "guidance": guidance}, tiny.branch_names(guidance)
    runs = [r for r in COUNTED[name] if all(i.when.branch in (None, *branches) for i in r.interventions)]
    plain, changed = partition(_encode(tiny, runs, Sampling(**how)), 3, branches)
    told = [one.rows(len(branches), 3) for one in (*plain, *changed)]
    assert sum(told) == sweep(tiny, runs, batch=3, **how).rows


def key(model, *runs, batch=2):
    return Keeper(model, {}, {}).keys(partition(runs, batch, ("uncond", "cond")))[-1]


OTHER = "unet/mid.attn.0.0/cross_attn.out"
VALUES = torch.ones(2, 1, 1, 1)


def copied(site, values=VALUES, **how):
    return patch(site, values, **how)


RUN = SweepRun("a cat", 0, (scale(SITE, 2.0), copied(OTHER)), ("a dog",))
DIFFERENT = {
    "text": replace(RUN, prompt="a dog"),
    "seed": replace(RUN, seed=1),
    "no companion": replace(RUN, companions=()),
    "companion": replace(RUN, companions=("a cow",)),
    "shared": replace(RUN, shared=True),
    "factor": replace(RUN, interventions=(scale(SITE, 2.5), copied(OTHER))),
    "site": replace(RUN, interventions=(scale(OTHER, 2.0), copied(OTHER))),
    "window": replace(RUN, interventions=(scale(SITE, 2.0, When([0])), copied(OTHER))),
    "another window": replace(RUN, interventions=(scale(SITE, 2.0, When([1])), copied(OTHER))),
    "branch": replace(RUN, interventions=(scale(SITE, 2.0, When(branch="uncond")), copied(OTHER))),
    "both branches": replace(RUN, interventions=(scale(SITE, 2.0, When(branch=None)), copied(OTHER))),
    "rows": replace(RUN, interventions=(scale(SITE, 2.0).on(1), copied(OTHER))),
    "order": replace(RUN, interventions=(copied(OTHER), scale(SITE, 2.0))),
    "values": replace(RUN, interventions=(scale(SITE, 2.0), copied(OTHER, 2 * VALUES))),
    "number format": replace(RUN, interventions=(scale(SITE, 2.0), copied(OTHER, VALUES.double()))),
    "tokens": replace(RUN, interventions=(scale(SITE, 2.0), copied(OTHER, tokens=[0]))),
    "heads": replace(RUN, interventions=(scale(SITE, 2.0), copied(OTHER, heads=[0]))),
}


def test_everything_that_a_run_is_is_in_its_key(tiny):
    keys = [key(tiny, RUN), *(key(tiny, run) for run in DIFFERENT.values())]
    assert len(set(keys)) == len(keys)
    assert key(tiny, RUN) == key(tiny, replace(RUN, interventions=(scale(SITE, 2.0), copied(OTHER))))
    assert key(tiny, RUN, replace(RUN, seed=1), batch=8) != key(tiny, RUN)  # who is beside it rounds it


def test_numbers_written_to_meanwhile_are_other_numbers(tiny, tmp_path):
    """A patch's values and an encoded prompt are read again when torch counts a write to them."""
    values, prompt = torch.ones(2, 1, 1, 1), tiny.encode(["a cat"])[0]
    prompt = replace(prompt, embeds=prompt.embeds.detach().clone())
    run = SweepRun(prompt, 0, (patch(SITE, values),))
    found = []
    for change in (lambda: None, lambda: values.mul_(3), lambda: prompt.embeds.mul_(2)):
        change()
        kept = sweep(tiny, [run], **HOW, store=tmp_path)
        assert torch.equal(kept.latents, sweep(tiny, [run], **HOW).latents)
        found.append(kept.latents)
    assert not any(torch.equal(found[i], found[j]) for i, j in ((0, 1), (1, 2)))
    assert len(read_studies(tmp_path)) == 3


def test_texts_encoded_together_are_one_key(tiny):
    """Encoders round otherwise in another batch, so a text beside others is another text."""
    runs = [SweepRun(text, 0) for text in ("a cat", "a dog", "a red cat on a mat")]
    alone, together = told_of(tiny, runs[:1]), told_of(tiny, runs)
    assert alone[0] != together[0] and together == told_of(tiny, runs)


def told_of(model, runs):
    encoded = _encode(model, runs, Sampling(steps=2))
    return Keeper(model, {}, texts_of(runs, encoded)).keys(partition(encoded, 1, ("uncond", "cond")))
