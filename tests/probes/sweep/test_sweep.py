"""Sweeps equal one run after another, on every scheduler, and cost less."""

import warnings

import diffusers
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from denoscope.models.run.context import When
from denoscope.probes.intervene import Intervention, scale, zero
from denoscope.probes.observe import Observer
from denoscope.probes.sweep.sweeping import SweepRun, sweep
from denoscope.probes.trace import trace
from tests.models.test_base import SCHEDULERS

SITES = ["unet/down.1.attn.0.0/cross_attn.out", "unet/mid.attn.0.0/mlp.out", "unet/up.0.res.0/resnet.out"]


def serial(model, runs, **settings):
    parts = [
        trace(model, [r.prompt], seeds=[r.seed], interventions=r.interventions, **settings).latents
        for r in runs
    ]
    return torch.cat(parts)


def close(a, b):
    scale = b.abs().max()
    torch.testing.assert_close(a / scale, b / scale, atol=1e-5, rtol=0)


RUNS = [
    SweepRun("a cat", 0),
    SweepRun("a cat", 0, (zero(SITES[0], When({2, 3})),)),
    SweepRun("a dog", 1, (scale(SITES[1], 3.0, When({2})),)),
    SweepRun("a dog", 2, (scale(SITES[2], -1.0),)),
    SweepRun("a cat", 0, (zero(SITES[0]), zero(SITES[1], When({1})))),
    SweepRun("a dog", 1, (zero(SITES[1], When({3})),)),
]


@pytest.mark.parametrize("name", SCHEDULERS)
def test_equal_to_the_serial_loop(tiny, name):
    original = tiny.pipe.scheduler
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tiny.pipe.scheduler = getattr(diffusers, name).from_config(original.config)
        swept = sweep(tiny, RUNS, steps=4, batch=4)
        close(swept.latents, serial(tiny, RUNS, steps=4))
    finally:
        tiny.pipe.scheduler = original


@given(
    picks=st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 1), st.floats(-2, 2)),
        min_size=1,
        max_size=5,
    ),
    batch=st.integers(1, 4),
    guidance=st.sampled_from([1.0, 4.0]),
)
def test_any_sweep_equals_the_serial_loop(tiny, picks, batch, guidance):
    runs = [SweepRun("a cat", seed, (scale(SITES[s], f, When({k})),)) for s, k, seed, f in picks]
    swept = sweep(tiny, runs, steps=4, batch=batch, guidance=guidance)
    close(swept.latents, serial(tiny, runs, steps=4, guidance=guidance))


def test_the_order_does_not_matter(tiny):
    close(sweep(tiny, RUNS[::-1], steps=4).latents.flip(0), sweep(tiny, RUNS, steps=4).latents)


def test_a_run_that_starts_late_costs_only_its_steps(tiny):
    runs = [SweepRun("a cat", 0, (zero(s, When({3})),)) for s in SITES]
    assert (
        sweep(tiny, runs, steps=4, guidance=1).rows == 3 + 3 * 1
    )  # the plain run up to there, then one step each
    assert sweep(tiny, runs, steps=4, guidance=2).rows == 2 * 6


@pytest.mark.parametrize(("branch", "first"), [("cond", 1), (None, 2), ("uncond", 1)])
@pytest.mark.parametrize("start", [0, 1])
def test_what_no_intervention_touches_is_shared_at_the_first_step(tiny, start, branch, first):
    """A branch that stays as it is reads the plain run's latent there, which has made its output."""
    runs = [
        SweepRun("a cat", 0),
        *(SweepRun("a cat", 0, (zero(s, When(range(start, 4), branch)),)) for s in SITES),
    ]
    swept = sweep(tiny, runs, steps=4, guidance=2)
    assert swept.rows == 2 * 4 + 3 * (first + 2 * (4 - start - 1))
    close(swept.latents, serial(tiny, runs, steps=4, guidance=2))


def test_a_run_that_is_changed_from_the_start_needs_no_plain_one(tiny):
    assert sweep(tiny, [SweepRun("a cat", 0, (zero(SITES[0]),))], steps=3, guidance=1).rows == 3


def test_runs_that_begin_together_may_touch_different_branches(tiny):
    runs = [
        SweepRun("a cat", seed, (scale(SITES[0], 3.0, When({1, 2}, branch)),))
        for seed in (0, 1)
        for branch in ("cond", "uncond", None)
    ]
    close(sweep(tiny, runs, steps=3).latents, serial(tiny, runs, steps=3))


@pytest.mark.parametrize(("batch", "sizes"), [(1, {2}), (2, {2}), (4, {2, 4}), (6, {6})])
def test_a_batch_holds_so_many_samples_companions_included(tiny, batch, sizes):
    """A run and its companions stay together."""
    seen = set()
    watch = tiny.denoiser.register_forward_pre_hook(lambda _, args: seen.add(len(args[0])))
    try:
        runs = [SweepRun("a dog", i, (zero(SITES[0]),), ("a cat",)) for i in range(3)]
        sweep(tiny, runs, steps=1, guidance=1, batch=batch)
    finally:
        watch.remove()
    assert seen == sizes


def test_settings_are_those_of_a_plain_run(tiny):
    how = {"steps": 2, "size": (24, 16), "negative": "a red emoji", "guidance": 3.0}
    swept = sweep(tiny, RUNS[:1] + RUNS[3:4], **how)
    close(swept.latents, serial(tiny, RUNS[:1] + RUNS[3:4], **how))
    assert swept.latents.shape == (2, 4, 12, 8)


def test_prompts_are_as_long_as_a_long_negative_one(tiny):
    how = {"steps": 2, "negative": "a red cat " * 15, "long_prompts": "chunks"}
    close(sweep(tiny, RUNS[:1], **how).latents, serial(tiny, RUNS[:1], **how))


def test_prompts_may_be_encoded_already(tiny):
    """One of them beside texts, and as a companion."""
    with torch.no_grad():
        dog = tiny.encode(["a dog"])[0]
    copy = Intervention(SITES[1], lambda x, _: torch.cat([x[1:2], x[1:]]))
    read, texts = (
        [SweepRun("a cat", 0, (copy,), (p,)), SweepRun(p, 0), SweepRun("a cat", 0)] for p in (dog, "a dog")
    )
    close(sweep(tiny, read, steps=2).latents, sweep(tiny, texts, steps=2).latents)


def test_identical_runs_are_made_once(tiny):
    off = zero(SITES[0])
    runs = [
        SweepRun("a cat", 0),
        SweepRun("a cat", 0),
        SweepRun("a cat", 0, (off,)),
        SweepRun("a cat", 0, (off,)),
        SweepRun("a cat", 1),
    ]
    swept = sweep(tiny, runs, steps=2, guidance=1)
    assert swept.rows == 3 * 2 and torch.equal(swept.latents[0], swept.latents[1])
    assert torch.equal(swept.latents[2], swept.latents[3]) and not torch.equal(
        swept.latents[0], swept.latents[4]
    )


def test_the_plain_run_stops_where_it_is_no_longer_needed(tiny):
    runs = [SweepRun("a cat", 0, (zero(SITES[0], When({1})),))]
    assert sweep(tiny, runs, steps=5, guidance=1).rows == 1 + 4


def test_a_companion_can_be_copied_from(tiny):
    """In-place restoration: the companion reads the other prompt at the run's own latent."""
    out = str(tiny.sites("unet/out/eps")[0])

    def same_latent(x, step):
        return torch.cat([x[:1], x[:1]])

    def take_over(x, step):
        return torch.cat([x[1:], x[1:]])

    copies = (Intervention(tiny.input_site, same_latent), Intervention(out, take_over))
    swept = sweep(tiny, [SweepRun("a dog", 0, copies, ("a cat",)), SweepRun("a cat", 0)], steps=3)
    close(swept.latents[:1], swept.latents[1:])


def test_companions_do_not_change_the_run(tiny):
    look = Intervention(SITES[0], lambda x, step: None)
    swept = sweep(tiny, [SweepRun("a dog", 0, (look,), ("a cat",)), SweepRun("a dog", 0)], steps=3)
    close(swept.latents[:1], swept.latents[1:])


def test_an_intervention_may_be_in_one_row_alone(tiny):
    """Row 0 is the run, row 1 its companion."""
    runs = [SweepRun("a dog", 0, (scale(SITES[0], 3.0, When(rows=(r,))),), ("a cat",)) for r in (0, 1)]
    changed, plain = sweep(tiny, runs, steps=2).latents
    alone = [SweepRun("a dog", 0, (scale(SITES[0], 3.0),)), SweepRun("a dog", 0)]
    close(torch.stack([changed, plain]), serial(tiny, alone, steps=2))
    assert not torch.allclose(changed, plain, atol=1e-3)


def test_progress_is_told(tiny):
    told = []
    runs = [*RUNS, RUNS[1]]  # the same run twice is one
    sweep(tiny, runs, steps=4, batch=2, progress=lambda *told_now: told.append(told_now))
    assert told[-1] == (6, 6, "runs") and told == sorted(told)


@pytest.mark.parametrize(
    ("runs", "settings", "error", "message"),
    [
        ([], {}, ValueError, "nothing to sweep"),
        (RUNS, {"batch": 0}, ValueError, "batch is 0"),
        (RUNS, {"steps": 0}, ValueError, "steps is 0"),
        (RUNS, {"negative": ["a", "b"]}, ValueError, "share one negative text"),
        ([SweepRun("a", 0, (zero("text_encoder/layer.0/mlp.out"),))], {}, ValueError, "in a text encoder"),
        ([SweepRun("a", 0, (zero(SITES[0], When(rows=(1,))),))], {}, ValueError, "rows"),
        (RUNS, {"steps": 2}, ValueError, "reach past the run"),
        ([SweepRun("a", 0, (zero("unet/mid.attn.0.0/mlp.aut"),))], {}, LookupError, "did you mean"),
        ([SweepRun("a " * 50, 0)], {}, ValueError, "cut off"),
    ],
)
def test_impossible_sweeps_are_refused_before_anything_runs(tiny, runs, settings, error, message):
    with pytest.raises(error, match=message):
        sweep(tiny, runs, **{"steps": 4, **settings})


def test_runs_that_differ_in_their_companions_alone_are_two_runs(tiny):
    """One and the same intervention copies from whoever runs beside."""
    copy = Intervention(SITES[1], lambda x, _: torch.cat([x[1:2], x[1:]]))
    dog, cook = (SweepRun("a cat", 0, (copy,), (beside,)) for beside in ("a dog", "a cook"))
    both = sweep(tiny, [dog, cook], steps=2).latents
    for latents, run in zip(both, (dog, cook), strict=True):
        close(latents, sweep(tiny, [run], steps=2).latents[0])
    assert (both[0] - both[1]).abs().max() > 1e-4


def test_observers_are_refused(tiny):
    observer = Observer({"x": SITES[0]}, lambda parts, context: None)
    with pytest.raises(TypeError, match=r"interventions\[0\] is an? Observer; it is an Intervention"):
        sweep(tiny, [SweepRun("a cat", 0, (observer,))], steps=2)
