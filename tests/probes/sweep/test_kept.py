"""Sweeps in a store: equal to the bit, gone on with where they stopped, the same key everywhere."""

import pytest
import torch

from denoscope.models.errors import StateError, UsageError
from denoscope.models.run.context import When
from denoscope.models.store.studies import read_studies
from denoscope.probes.intervene import Intervention, Spec, intervening, scale
from denoscope.probes.sweep import batching
from denoscope.probes.sweep.keeping import Keeper
from denoscope.probes.sweep.partition import SweepRun, partition
from denoscope.probes.sweep.sweeping import sweep

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
