"""The training loop: it solves what can be solved, and what was stopped goes on to the same bits."""

import os
import signal
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from denoscope.models.errors import StateError, UsageError
from denoscope.models.fit import fit, seeded
from denoscope.models.fit_state import Checkpoints

STEPS = 12
OPTIMIZERS = {
    "adamw": partial(torch.optim.AdamW, lr=0.05),
    "adam, amsgrad": partial(torch.optim.Adam, lr=0.05, amsgrad=True),
    "sgd, momentum": partial(torch.optim.SGD, lr=0.05, momentum=0.9),
}
X = torch.randn(40, 3, generator=torch.Generator().manual_seed(1))
TRUE = torch.tensor([1.0, -2.0, 0.5])


class Stop(BaseException):
    """What a test stops a fit with."""


def small():
    """A network with all that a step can change or draw: dropout, and a norm with running means."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.GELU(), nn.Linear(8, 1))


def noisy(net, stop=None):
    def loss(step, generator):
        if step == stop:
            raise Stop
        rows = torch.randint(len(X), (16,), generator=generator)
        return (net(X[rows]).squeeze(-1) - X[rows] @ TRUE).square().mean()

    return loss


def trained(folder=None, stop=None, net=None, steps=STEPS, **more):
    net = small() if net is None else net
    settings = {"optimizer": OPTIMIZERS["adamw"], "schedule": lambda i: 1 / (1 + i), "every": 5} | more
    return fit(net, noisy(net, stop), steps=steps, folder=folder, **settings), net


def bits(net):
    return {n: t.clone() for n, t in net.state_dict().items()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


# planted -------------------------------------------------------------------------------------------------


def test_least_squares_is_solved():
    w, b = torch.zeros(3, requires_grad=True), torch.zeros((), requires_grad=True)
    done = fit(
        {"w": w, "b": b},
        lambda step, rng: (X @ w + b - X @ TRUE - 4).square().mean(),
        steps=400,
        optimizer=partial(torch.optim.SGD, lr=0.2),
    )
    assert torch.allclose(w, TRUE, atol=1e-4) and torch.allclose(b, torch.tensor(4.0), atol=1e-4)
    assert done.steps == 400 and done.losses[0] > 10 and done.losses[-1] < 1e-6
    frame = done.to_frame()
    assert list(frame.columns) == ["step", "loss"] and frame["loss"].to_numpy() == pytest.approx(done.losses)
    assert repr(done) == f"Fitted(400 steps; loss {done.losses[0]:.4g} -> {done.losses[-1]:.4g})"


def test_it_equals_a_loop_written_by_hand():
    w, v = torch.ones(3, requires_grad=True), torch.ones(3, requires_grad=True)
    fitted = fit([w], lambda step, rng: (X @ w - step).square().mean(), steps=5, schedule=lambda i: 0.5**i)
    by_hand, losses = torch.optim.AdamW([v], lr=1e-3), []
    for i in range(5):
        by_hand.param_groups[0]["lr"] = 1e-3 * 0.5**i
        by_hand.zero_grad()
        loss = (X @ v - i).square().mean()
        loss.backward()
        by_hand.step()
        losses.append(loss.item())
    assert torch.equal(w, v) and fitted.losses.tolist() == losses


# law: stopped and continued is the same ------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
@given(stops=st.lists(st.integers(0, STEPS - 1), max_size=2), every=st.sampled_from([1, 3, 5, STEPS + 1]))
def test_stopped_anywhere_and_continued_equals_not_stopped(tmp_path_factory, optimizer, stops, every):
    folder = tmp_path_factory.mktemp("fit") / "run"
    whole, net = trained(optimizer=optimizer)
    for stop in stops:
        with pytest.raises(Stop):
            trained(folder, stop, optimizer=optimizer, every=every)
            raise Stop  # the checkpoint was after this step already
    again, other = trained(folder, optimizer=optimizer, every=every)
    assert equal(bits(net), bits(other))
    assert np.array_equal(whole.losses, again.losses)


def test_a_finished_fit_is_not_made_again(tmp_path):
    whole, net = trained(tmp_path)
    again, other = trained(tmp_path, stop=0)
    assert equal(bits(net), bits(other)) and np.array_equal(whole.losses, again.losses)
    trained(tmp_path, stop=0, net=net)  # with the trained one in hand too


def test_after_a_stop_the_same_module_goes_on(tmp_path):
    """As in a notebook: Ctrl-C, then the same cell again."""
    whole, net = trained()
    other = small()
    for stop in (7, 11):
        with pytest.raises(Stop):
            trained(tmp_path, stop, net=other)
    again, _ = trained(tmp_path, net=other)
    assert equal(bits(net), bits(other)) and np.array_equal(whole.losses, again.losses)


KILLED = """
import sys, torch
torch.set_num_threads(1)
from tests.models.test_fit import noisy, small, trained
net = small()
inner = noisy(net)
def loss(step, generator):
    print(step, flush=True)
    if step == 8:
        sys.stdin.read()
    return inner(step, generator)
import tests.models.test_fit as home
home.noisy = lambda net, stop: loss
trained(sys.argv[1], net=net)
"""


def test_a_killed_fit_goes_on(tmp_path):
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        while process.stdout.readline() != "8\n":
            assert process.poll() is None
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    first = []
    net = small()
    inner = noisy(net)
    again = fit(
        net,
        lambda step, rng: (first.append(step), inner(step, rng))[1],
        steps=STEPS,
        folder=tmp_path,
        optimizer=OPTIMIZERS["adamw"],
        schedule=lambda i: 1 / (1 + i),
        every=5,
    )
    whole, other = trained()
    assert first[0] == 5
    assert equal(bits(net), bits(other)) and np.array_equal(whole.losses, again.losses)


@pytest.mark.parametrize(("how", "at"), [({"every": 3}, [3, 6, 7]), ({"every": 100}, [7])])
def test_checkpoints_are_as_far_apart_as_asked(tmp_path, monkeypatch, how, at):
    kept = []
    monkeypatch.setattr(Checkpoints, "save", lambda _, state: kept.append(len(state.losses)))
    trained(tmp_path, steps=7, **how)
    assert kept == at


def test_a_damaged_checkpoint_begins_anew(tmp_path, caplog):
    with pytest.raises(Stop):
        trained(tmp_path, 11)
    file = next(tmp_path.rglob("arrays-*"))
    file.write_bytes(file.read_bytes()[:-9])
    again, other = trained(tmp_path)
    assert "is damaged" in caplog.text
    assert equal(bits(trained()[1]), bits(other)) and again.steps == STEPS


def test_half_precision_goes_on_too(tmp_path):
    def run(folder, stop=None):
        w = torch.ones(3, dtype=torch.bfloat16, requires_grad=True)

        def loss(step, rng):
            if step == stop:
                raise Stop
            return (w * torch.randn(3, generator=rng) - 1).float().square().sum()

        fit([w], loss, steps=9, folder=folder, every=2, optimizer=partial(torch.optim.AdamW, lr=0.1))
        return w.detach()

    with pytest.raises(Stop):
        run(tmp_path, 5)
    assert torch.equal(run(tmp_path), run(None))


def test_an_optimizer_may_remember_plain_numbers(tmp_path):
    class Slowing(torch.optim.SGD):
        def step(self, closure=None):
            for p in self.param_groups[0]["params"]:
                count = self.state[p]["count"] = self.state[p].get("count", 0) + 1
                p.data -= 0.1 / count * p.grad

    how = {"optimizer": partial(Slowing, lr=1.0)}
    whole, net = trained(**how)
    with pytest.raises(Stop):
        trained(tmp_path, 7, **how)
    _, other = trained(tmp_path, **how)
    assert equal(bits(net), bits(other))


# randomness ----------------------------------------------------------------------------------------------


def draws(seed, step):
    with seeded(seed, step) as generator:
        return torch.rand(3, generator=generator).tolist() + torch.rand(3).tolist()


def test_each_step_has_randomness_of_its_own_and_torchs_is_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    seen = [draws(seed, step) for seed in (0, 1, 11) for step in (0, 1, 10)]
    assert torch.equal(torch.rand(2), expected)
    numbers = [x for row in seen for x in row]
    assert len(set(numbers)) == len(numbers)
    assert draws(0, 10) == seen[2]


def test_another_seed_is_another_fit():
    assert not np.array_equal(trained()[0].losses, trained(seed=1)[0].losses)


# failures ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"steps": 20}, "steps was 12, is 20"),
        ({"seed": 3}, "seed was 0, is 3"),
        ({"about": {"data": "b"}}, r"about was \{\}, is \{\"data\": \"b\"\}"),
        ({"schedule": None}, "schedule was .*, is null"),
        ({"schedule": lambda i: 1 / (2 + i)}, "schedule was .*, is"),
        ({"optimizer": partial(torch.optim.AdamW, lr=0.1)}, "optimizer settings was .*0.05.*, is .*0.1"),
        ({"optimizer": OPTIMIZERS["sgd, momentum"]}, 'optimizer was "AdamW", is "SGD"'),
    ],
)
def test_a_folder_of_another_fit_is_refused(tmp_path, change, words):
    with pytest.raises(Stop):
        trained(tmp_path, 7)
    net = small()
    before = bits(net)
    with pytest.raises(UsageError, match=rf"holds another fit: .*{words}.*Name a new folder"):
        trained(tmp_path, net=net, **change)
    assert equal(bits(net), before)


def test_other_starting_values_or_frozen_ones_are_another_fit(tmp_path):
    with pytest.raises(Stop):
        trained(tmp_path, 7)
    net = small()
    net[0].weight.data[0, 0] += 1
    with pytest.raises(UsageError, match="another fit: start was"):
        trained(tmp_path, net=net)
    net = small()
    net[0].weight.requires_grad_(False)
    with pytest.raises(UsageError, match="another fit: .*frozen parameters was"):
        trained(tmp_path, net=net)


def test_other_frozen_values_are_another_fit(tmp_path):
    def frozen(change):
        net = small()
        net[0].weight.requires_grad_(False).data[0, 0] += change
        return net

    with pytest.raises(Stop):
        trained(tmp_path, 7, net=frozen(0))
    with pytest.raises(UsageError, match="another fit: frozen parameters was"):
        trained(tmp_path, net=frozen(1))


def test_after_going_on_a_stop_puts_back_the_checkpoint(tmp_path):
    ends = []
    for stop in (7, 6, 8):  # the checkpoint is before step 5
        net = small()
        with pytest.raises(Stop):
            trained(tmp_path, stop, net=net)
        ends.append(bits(net))
    assert equal(ends[0], ends[1]) and equal(ends[0], ends[2]) and not equal(ends[0], bits(small()))


def test_another_number_format_is_another_fit(tmp_path):
    def run(dtype):
        w = torch.ones(3, dtype=dtype, requires_grad=True)
        fit([w], lambda step, rng: w.float().square().sum(), steps=2, folder=tmp_path)

    run(torch.bfloat16)
    with pytest.raises(UsageError, match="another fit: start was"):
        run(torch.float32)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_loss_that_is_not_finite_stops_at_once(tmp_path, value):
    w = torch.ones(2, requires_grad=True)

    def loss(step, rng):
        return w.sum() * (value if step == 7 else 1)

    for _ in range(2):
        with pytest.raises(StateError, match=r"the loss is (nan|-inf) at step 7; take a lower learning rate"):
            fit([w], loss, steps=9, folder=tmp_path, every=3, optimizer=partial(torch.optim.SGD, lr=0.5))
        assert w.tolist() == [-2, -2]  # as at the checkpoint after step 5


def test_parameters_that_are_not_finite_stop_at_once():
    w = torch.zeros(2, requires_grad=True)
    with pytest.raises(StateError, match="w is not finite after step 0"):
        fit({"w": w}, lambda step, rng: w.sum().sqrt(), steps=1)
    assert w.tolist() == [0, 0] and w.grad is None


BAD = [
    ({"what": []}, "it is empty"),
    ({"what": [torch.zeros(2)]}, r"cannot be trained \(0\); set requires_grad_"),
    ({"what": {"w": torch.ones(2, requires_grad=True), "x": torch.zeros(2)}}, r"cannot be trained \(x\)"),
    ({"what": {"w": torch.zeros(2, requires_grad=True) * 2}}, "w is computed from others"),
    ({"loss": lambda step, rng: torch.zeros(())}, "step 0 has shape .* does not depend on what is trained"),
    ({"loss": lambda step, rng: W * 2}, r"step 0 has shape \(2,\) and depends"),
    ({"steps": 0}, "steps is 0; at least 1"),
    ({"every": 0}, "every is 0"),
    ({"about": {"x": torch.float16}}, r"about\['x'\] is torch.float16"),
]
W = torch.ones(2, requires_grad=True)


@pytest.mark.parametrize(("change", "words"), BAD)
def test_what_cannot_be_fitted_is_refused(change, words):
    given = {"what": [W], "loss": lambda step, rng: W.sum(), "steps": 2} | change
    with pytest.raises(UsageError, match=words):
        fit(given.pop("what"), given.pop("loss"), **given)
    assert W.tolist() == [1, 1]


def test_nothing_is_left_on_what_is_not_trained(caplog):
    net, idle = small(), torch.ones(2, requires_grad=True)
    fit({"w": net[4].weight, "idle": idle}, noisy(net), steps=2)
    assert all(p.grad is None for p in net.parameters())
    assert [r.getMessage() for r in caplog.records] == ["the loss of the first step does not depend on idle"]


def test_a_step_that_fails_leaves_no_gradient():
    class Failing(torch.optim.SGD):
        def step(self, closure=None):
            raise Stop

    w = torch.ones(2, requires_grad=True)
    with pytest.raises(Stop):
        fit([w], lambda step, rng: w.sum(), steps=1, optimizer=partial(Failing, lr=0.1))
    assert w.grad is None and w.tolist() == [1, 1]


def test_progress_is_told():
    told = []
    trained(progress=lambda *x: told.append(x))
    assert told == [(i + 1, STEPS, "fitting") for i in range(STEPS)]
