"""How near a plan's time comes: rows over the measured pace, against the work itself.

    python benchmarks/plan_time.py        both text models, on one thread: some five minutes

The pace is measured first, as ``denoscope plan`` measures it; then each job is counted and done. Writes the
table of docs/studies.md. For a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from pages import table, write

from denoscope.analysis import evaluate_edit, trace_denoiser, trace_text
from denoscope.analysis.plans import StudyPlan
from denoscope.cli.pace import measured
from denoscope.editing import uce
from denoscope.explanation.explain import explain
from denoscope.explanation.planning import plan_explanation
from denoscope.investigation.case import Case, Setup, prepare
from denoscope.investigation.planning import plan_edit, plan_locate
from denoscope.investigation.stages.denoiser_cause import denoiser_call
from denoscope.investigation.stages.text_cause import text_call

PAGE = "docs/studies.md"
MODELS = ("emoji", "emoji-dit")
PROMPT, ABOUT, TO = "a noto emoji of a woman firefighter", "firefighter", "cook"
SEEDS, STEPS = 2, 10
Job = tuple[StudyPlan, Callable[[], Any]]


def jobs(setup: Setup) -> dict[str, Job]:
    """What is planned and done."""
    model, case = setup.model, setup.case
    part, encoder = model.input_site.component, model.text_encoders[0]
    prompts = setup.wording.evaluation_prompts()
    edit = uce(model, {ABOUT: TO})

    def check() -> None:
        evaluate_edit(model, edit.applied, prompts, judge=setup.judge, **setup.run)

    return {
        "plan locate": (plan_locate(case, encoder)[0], lambda: trace_text(**text_call(setup, encoder))),
        f"plan locate --in {part}": (
            plan_locate(case, part)[0],
            lambda: trace_denoiser(**denoiser_call(setup)),
        ),
        "plan edit": (plan_edit(case)[0], check),
        "plan explain": (
            plan_explanation(model, PROMPT, steps=STEPS),
            lambda: explain(model, PROMPT, steps=STEPS),
        ),
    }


def lines(name: str) -> list[tuple[str, ...]]:
    """A line for each job of a model."""
    setup = prepare(Case(PROMPT, ABOUT, TO, model=name, seeds=SEEDS, steps=STEPS))
    found = []
    for what, (plan, work) in jobs(setup).items():
        pace = measured(plan, setup.model, PROMPT)
        planned = plan.seconds(pace.rows or 0, single=pace.single, picture=pace.picture)
        start = time.perf_counter()
        work()
        took = time.perf_counter() - start
        cells = (f"{plan.rows:,}", f"{planned:.1f} s", f"{took:.1f} s", f"{planned / took - 1:+.0%}")
        found.append((f"`denoscope {what}`, {name}", *cells))
    return found


def main() -> None:
    """Measure and write."""
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    torch.set_num_threads(1)
    header = ("job", "rows", "planned", "took", "plan - took")
    write(PAGE, "plan-time", table(header, [line for name in MODELS for line in lines(name)]))


if __name__ == "__main__":
    main()
