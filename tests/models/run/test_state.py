"""States of a run: rows taken, repeated and joined; children of one state with seeds of their own."""

from __future__ import annotations

from dataclasses import replace

import diffusers
import pytest
import torch

from denoscope.models.load import load
from denoscope.models.run.state import SamplerState
from denoscope.models.synthetic.tiny import tiny_sd

SETTINGS = {"steps": 5, "guidance": 3.0}


def middle_of(model, seeds=(0, 1), prompts=("a cat", "a dog")):
    run = model.sample(prompts, seeds=seeds, **SETTINGS)
    with torch.no_grad():
        return [next(run) for _ in range(2)][-1].sampler_state()


def end(model, state, prompts):
    with torch.no_grad():
        *_, last = model.sample(prompts, seeds=state.seeds, start=state, **SETTINGS)
    return last.latents


@pytest.fixture(scope="module", params=["EulerAncestralDiscreteScheduler", "DDIMScheduler", "PNDMScheduler"])
def model(request):
    pipe = tiny_sd()
    pipe.scheduler = getattr(diffusers, request.param).from_config(pipe.scheduler.config)
    return load(pipe)


def test_children_of_one_state_differ_where_noise_is_still_drawn(model):
    parent = middle_of(model).rows([0, 0, 0])
    same = end(model, parent, ["a cat"] * 3)
    torch.testing.assert_close(same[0], same[1])
    children = end(model, parent.reseeded([7, 8, 7]), ["a cat"] * 3)
    torch.testing.assert_close(children[0], children[2])
    stochastic = "Ancestral" in type(model.scheduler).__name__
    assert torch.allclose(children[0], children[1], atol=1e-3) != stochastic


def test_rows_repeated_and_joined_go_on_as_the_whole(model):
    state = middle_of(model)
    whole = end(model, state, ["a cat", "a dog"])
    joined = SamplerState.join([state.rows([1]), state.rows([0, 0])])
    again = end(model, joined, ["a dog", "a cat", "a cat"])
    torch.testing.assert_close(again, whole[[1, 0, 0]], rtol=1e-3, atol=1e-4)


def test_a_state_is_not_changed_by_going_on(model):
    state = middle_of(model)
    first, second = (end(model, state, ["a cat", "a dog"]) for _ in range(2))
    assert torch.equal(first, second)


def test_what_does_not_fit_is_refused(model):
    state = middle_of(model)
    with pytest.raises(ValueError, match="1 seeds for 2 samples"):
        state.reseeded([1])
    start = model.start([0], 5)
    with pytest.raises(ValueError, match=r"states are at steps \[2, 0\]"):
        SamplerState.join([state, start])


def test_what_is_known_and_remembered_goes_with_its_rows(tiny):
    start = tiny.start([0, 1, 2], 2)
    known, mean = tiny.noise([3, 4, 5]), tiny.noise([6, 7, 8])
    state = replace(start, index=1, known={"cond": known}, memory={"mean": mean})
    taken = state.rows([2, 0, 2])
    assert taken.index == 1 and torch.equal(taken.latents, start.latents[[2, 0, 2]])
    assert torch.equal(taken.known["cond"], known[[2, 0, 2]])
    assert torch.equal(taken.memory["mean"], mean[[2, 0, 2]])
    assert all(map(torch.equal, taken.noise_states, [start.noise_states[i] for i in (2, 0, 2)]))
    joined = SamplerState.join([state.rows([2]), state.rows([0, 1])])
    assert joined.index == 1 and torch.equal(joined.latents, start.latents[[2, 0, 1]])
    assert torch.equal(joined.known["cond"], known[[2, 0, 1]])
    assert torch.equal(joined.memory["mean"], mean[[2, 0, 1]])
    assert all(map(torch.equal, joined.noise_states, [start.noise_states[i] for i in (2, 0, 1)]))


def test_what_only_some_know_is_computed_and_what_only_some_remember_is_refused(tiny):
    plain = tiny.start([0], 2)
    knows, remembers = (replace(plain, **{k: {"a": plain.latents}}) for k in ("known", "memory"))
    for parts in ([plain, knows], [knows, plain]):
        assert SamplerState.join(parts).known == {}
    for parts in ([plain, remembers], [remembers, plain]):
        with pytest.raises(ValueError, match=r"states remember different things: .*\['a'\]"):
            SamplerState.join(parts)


def test_a_state_of_the_middle_is_kept_while_the_run_goes_on(model):
    run = model.sample(["a cat", "a dog"], seeds=[0, 1], **SETTINGS)
    with torch.no_grad():
        state = [next(run) for _ in range(3)][-1].sampler_state()
        *_, last = run
    assert state.index == 3
    assert torch.equal(end(model, state, ["a cat", "a dog"]), last.latents)


def test_a_start_goes_on_with_its_own_seeds(model):
    state = middle_of(model)
    assert state.seeds == (0, 1) and state.rows([1]).seeds == (1,) and state.reseeded([7, 8]).seeds == (7, 8)
    with pytest.raises(ValueError, match=r"seeds are \[5, 6\], .* of seeds \[0, 1\]; .*reseeded\(\[5, 6\]\)"):
        list(model.sample(["a cat", "a dog"], seeds=[5, 6], start=state, **SETTINGS))
