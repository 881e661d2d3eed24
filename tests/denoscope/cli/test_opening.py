"""How many cores a command takes, and which seeds."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest
import torch

from denoscope.cli import opening
from denoscope.cli.commands import demo
from denoscope.cli.options import Seeds
from tests.denoscope.cli.calling import call


def test_threads_sleep_while_they_wait_unless_torch_is_loaded_or_told_otherwise(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    opening.sleep_while_waiting()
    assert "OMP_WAIT_POLICY" not in os.environ  # too late: torch has read it
    monkeypatch.delitem(sys.modules, "torch")
    opening.sleep_while_waiting()
    assert os.environ["OMP_WAIT_POLICY"] == opening.SLEEP
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    opening.sleep_while_waiting()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"


FAULTS = """
import resource, sys
import numpy as np
from denoscope.cli import opening

assert "torch" not in sys.modules
if sys.argv[1] == "kept":
    opening.keep_freed_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    np.ones(2**26, np.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="others have no mallopt")
def test_what_is_freed_is_kept_for_the_next_step():
    def faults(how):
        done = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert faults("kept") < faults("as usual") / 4


@pytest.mark.parametrize(
    ("model", "policy", "number", "taken"),
    [
        ("emoji", "PASSIVE", None, [2]),
        ("emoji", "passive", None, [2]),
        ("emoji", "ACTIVE", None, [1]),
        ("emoji", None, None, [1]),
        ("emoji", "PASSIVE", "3", []),
        ("owner/name", "PASSIVE", None, []),
    ],
)
def test_embedded_models_take_two_threads_if_these_sleep(model, policy, number, taken, monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    for name, value in (("OMP_WAIT_POLICY", policy), ("OMP_NUM_THREADS", number)):
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name, raising=False)
    opening.use_threads(model)
    assert asked == taken


@pytest.mark.parametrize(
    ("options", "seeds", "analyses"),
    [
        ([], 2, ("mediation", "directions")),
        (["--seeds", 8], 8, ("mediation", "directions")),
        (["--seed", "7,8,9"], (7, 8, 9), ("mediation", "directions")),
        (["--quick"], 2, ("mediation",)),
        (["--quick", "--seeds", 4], 4, ("mediation",)),
    ],
)
def test_the_demo_takes_seeds_and_quick_looks_less(options, seeds, analyses, monkeypatch):
    cases = []
    monkeypatch.setattr(demo, "run_case", lambda case, *_, **__: cases.append(case))
    assert call("demo", *options).exit_code == 0
    assert [(c.seeds, c.analyses, c.steps) for c in cases] == [(seeds, analyses, 5)]


def test_seeds_are_how_many_or_which():
    assert (Seeds().chosen, Seeds(seed="5").chosen, Seeds(seed="7, 8").chosen) == (4, (5,), (7, 8))
