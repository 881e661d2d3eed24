"""The ``denoscope`` command.

Heavy imports happen inside the commands, so that ``--help`` is quick.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from .. import __version__
from .commands import bench, direction, features, plan
from .commands.bias import bias
from .commands.compare import compare
from .commands.demo import demo
from .commands.edit import edit
from .commands.evaluate import evaluate
from .commands.explain import explain
from .commands.export import export
from .commands.generate import generate
from .commands.investigate import investigate
from .commands.locate import locate
from .commands.robustness import robustness
from .commands.sites import sites
from .commands.steer import steer
from .commands.studies import studies
from .commands.trace import trace
from .faults import Plain
from .groups import expanded
from .opening import keep_freed_memory, sleep_while_waiting

app = typer.Typer(
    cls=Plain,
    no_args_is_help=True,
    rich_markup_mode="rich",
    add_completion=False,
    pretty_exceptions_enable=False,
    help=(
        "Look inside a diffusion model while it samples, find what causes what, change exactly that, and "
        "check that nothing else moved.\n\n"
        "Start here:  [bold]denoscope demo[/]\n\n"
        "Then try your own words:  [bold]denoscope investigate "
        '"a twemoji emoji of a red apple" --about apple --change-to banana[/]'
    ),
    epilog=(
        "Results go to standard output, progress and faults to standard error. Exit codes: 0 done, 2 refused "
        "(the message says what to write instead), 1 failed, 130 interrupted."
    ),
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"denoscope {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[  # noqa: ARG001 - read by Plain
        bool, typer.Option("--debug", help="Show where a fault arose, not its message alone.")
    ] = False,
    version: Annotated[  # noqa: ARG001 - acts by itself
        bool,
        typer.Option("--version", help="Print the version.", callback=_version, is_eager=True),
    ] = False,
) -> None:
    """Take the options that all commands share, before the name of one."""
    sleep_while_waiting()
    keep_freed_memory()


def _grouped() -> None:
    """Compare methods on many concepts."""


# in the order of --help
COMMANDS: dict[str, tuple[Callable[..., None], ...]] = {
    "The whole loop": (demo, investigate),
    "Look": (generate, explain, sites, trace),
    "Find": (locate, bias),
    "Change": (edit, export, steer),
    "Check": (evaluate, robustness, compare),
    "Keep": (studies,),
}
for panel, commands in COMMANDS.items():
    for command in commands:
        app.command(rich_help_panel=panel)(expanded(command))

directions = typer.Typer(
    no_args_is_help=True, rich_markup_mode="rich", help="Find the direction of an attribute; look at it."
)
directions.command()(expanded(direction.fit))
directions.command()(expanded(direction.show))
app.add_typer(directions, name="direction", rich_help_panel="Find")

featured = typer.Typer(
    no_args_is_help=True, rich_markup_mode="rich", help="Train a sparse dictionary of a site; look at it."
)
featured.command()(expanded(features.train))
featured.command()(expanded(features.browse))
app.add_typer(featured, name="features", rich_help_panel="Find")

compared = typer.Typer(
    no_args_is_help=True, rich_markup_mode="rich", help="Compare methods on many concepts."
)
compared.command()(expanded(bench.edits))
compared.callback()(_grouped)
app.add_typer(compared, name="bench", rich_help_panel="Check")

planned = typer.Typer(
    no_args_is_help=True, rich_markup_mode="rich", help="Tell what long work takes, before it is begun."
)
for command in (plan.locate, plan.edit, plan.explain, plan.features):
    planned.command()(expanded(command))
planned.callback(invoke_without_command=True)(expanded(plan.calibration))
app.add_typer(planned, name="plan", rich_help_panel="Keep")
