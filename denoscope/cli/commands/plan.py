"""``denoscope plan``: what long work takes, before it is begun."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..opening import open_model, use_threads
from ..options import AboutOpt, ChangeOpt, JudgedRuns, Opening, PromptArg, Runs
from ..output import Output, duration, table
from ..pace import check

if TYPE_CHECKING:
    from ...analysis.plans import StudyPlan
    from ...models.base import Model


@dataclass(frozen=True)
class Machine:
    """Which model it is asked for, and of which machine."""

    full_size: Annotated[
        str | None,
        typer.Option(
            "--full-size",
            help="A published configuration in place of --model, in half precision and without weights: "
            "sd-1.5, sdxl, flux-dev ...",
            show_default=False,
        ),
    ] = None
    gpu: Annotated[
        str | None,
        typer.Option(
            help="The least time on a GPU, by its maker's peak: t4, rtx-4090, a100, h100, h200.",
            show_default=False,
        ),
    ] = None
    pace: Annotated[
        float | None,
        typer.Option(
            help="Denoiser rows a second; if left out, as calibrated, or measured now.", show_default=False
        ),
    ] = None

    def __post_init__(self) -> None:
        check(self.pace, self.gpu)


def calibration(
    ctx: typer.Context,
    *,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Measure how fast --model goes on this machine, and keep it.")
    ] = False,
    opening: Opening = Opening(),
    to: Output = Output(),
) -> None:
    """Tell what long work takes, before it is begun."""
    if not calibrate:
        return
    if ctx.invoked_subcommand is not None:
        raise typer.BadParameter("--calibrate stands alone:  denoscope plan --calibrate --model emoji")
    from ..pace import calibrate as measure

    found = measure(open_model(opening, to))
    to.result(found, table(("what", "on this machine"), ((k, f"{v}") for k, v in found.items())))


def locate(
    prompt: PromptArg,
    *,
    about: AboutOpt,
    inside: Annotated[
        str | None,
        typer.Option(
            "--in",
            help="text_encoder, unet, transformer; the text encoder, if there is one, if left out.",
            show_default=False,
        ),
    ] = None,
    run: JudgedRuns = JudgedRuns(seeds=2),
    of: Machine = Machine(),
    to: Output = Output(),
) -> None:
    """Tell what denoscope locate takes with the same options: rows, memory, time.

    Example:  denoscope plan locate "a noto emoji of a dog" --about dog --in unet --seeds 8

    Example:  denoscope plan locate "a photo of a dog" --about dog --in unet --full-size sdxl --gpu h100
    """
    from ...investigation.case import Case
    from ...investigation.planning import plan_locate

    use_threads(run.model)
    with to.status("counting"):
        found, model = plan_locate(Case(prompt, about, "", **run.case), inside, of.full_size)
    _tell(found, model, prompt, of, to)


def edit(
    prompt: PromptArg,
    *,
    about: AboutOpt,
    change_to: ChangeOpt,
    run: JudgedRuns = JudgedRuns(),
    of: Machine = Machine(),
    to: Output = Output(),
) -> None:
    """Tell what denoscope evaluate takes of an edit; making one in closed form runs no denoiser.

    Example:  denoscope plan edit "a noto emoji of a woman firefighter" --about firefighter --change-to cook
    """
    from ...investigation.case import Case
    from ...investigation.planning import plan_edit

    use_threads(run.model)
    with to.status("counting"):
        found, model = plan_edit(Case(prompt, about, change_to, **run.case), of.full_size)
    _tell(found, model, prompt, of, to)


def explain(
    prompt: PromptArg,
    *,
    word: Annotated[
        list[str] | None,
        typer.Option(help="A word to explain, once for each; as in denoscope explain.", show_default=False),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Sampling steps; 20 if left out.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale; the model's own if left out.")] = (
        None
    ),
    how: Opening = Opening(),
    of: Machine = Machine(),
    to: Output = Output(),
) -> None:
    """Tell what denoscope explain takes with the same options.

    Example:  denoscope plan explain "a noto emoji of a woman firefighter"
    """
    from ...explanation.planning import plan_explanation

    model = _model(how, of, to)
    found = plan_explanation(model, prompt, words=word or None, steps=steps, guidance=guidance)
    _tell(found, model, prompt, of, to)


def features(
    prompt: Annotated[
        list[str], typer.Argument(help="A prompt of each class, each in quotes.", show_default=False)
    ],
    *,
    run: Runs = Runs(steps=20),
    of: Machine = Machine(),
    to: Output = Output(),
) -> None:
    """Tell what the runs of bias_features take: each prompt with each seed. Kept activations are not told.

    Example:  denoscope plan features "a noto emoji of a woman cook" "a noto emoji of a man cook" --seeds 32
    """
    from ...analysis.plans import samples_plan
    from ...models.run.sampling import Sampling

    model = _model(run, of, to)
    seeds = run.chosen if isinstance(run.chosen, tuple) else range(run.chosen)
    how = Sampling(steps=run.steps, guidance=run.guidance)
    _tell(samples_plan(model, len(prompt) * len(seeds), how, 16, 0), model, prompt[0], of, to)


def _model(how: Opening, of: Machine, to: Output) -> Model:
    from ...investigation.planning import unweighed

    return unweighed(of.full_size) if of.full_size else open_model(how, to)


def _flops(n: float) -> str:
    unit, name = next((u, name) for u, name in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (0, "M")) if n >= u)
    return f"{n / (unit or 1e6):.3g} {name}FLOP"


def _store(found: StudyPlan) -> str:
    return f"{found.stored / 1e6:.1f} MB, {found.files:,} files beside its database"


def _tell(found: StudyPlan, model: Model, prompt: str, of: Machine, to: Output) -> None:
    """Show a plan, and what its rows take."""
    from ...models.run.cost import row_cost
    from ..pace import pace_of

    cost = row_cost(model)
    pace = pace_of(found, model, cost, prompt, of.pace, of.gpu)
    most = "" if found.exact else "at most "
    seconds = None
    if pace.rows is not None:
        seconds = found.seconds(pace.rows, single=pace.single, picture=pace.picture)
    rows = found.samples * len(model.branch_names(None))
    cells: dict[str, Any] = {"denoiser rows": f"{most}{found.rows:,}"}
    if found.reference_rows is not None:
        cells["as published"] = f"{found.reference_rows:,}"
    cells |= {
        "runs": f"{found.runs:,}",
        "samples in a batch": str(found.samples),
        "operations": f"{most}{_flops(found.rows * cost.flops)}, {_flops(cost.flops)} a row",
        **({"activations kept": f"{found.kept / 1e6:.1f} MB"} if found.kept else {}),
        **({"pictures decoded": f"{found.pictures:,}"} if found.pictures else {}),
        **({"in a store": _store(found)} if found.stored else {}),
        "peak memory": f"about {cost.peak(rows) / 1e9:.2f} GB, {cost.weights / 1e9:.2f} GB of it weights",
        "rows a second": pace.told,
    }
    if seconds is not None:
        long = duration(seconds)
        cells["time"] = f"{long} at its peak; longer in fact" if pace.at_best else most + long
    told = {**asdict(found), "flops": found.rows * cost.flops, "peak": cost.peak(rows)}
    told |= {"weights": cost.weights, "rows_per_second": pace.rows, "whence": pace.whence, "seconds": seconds}
    to.result(told, table(("what", found.what), cells.items()))
