"""The help: it is quick, names every command, and its examples can be typed as they stand."""

from __future__ import annotations

import inspect
import re
import shlex
import subprocess
import sys

import pytest
import typer

import denoscope
from denoscope.cli import app
from tests.denoscope.cli.calling import call

COMMANDS = ["demo", "investigate", "generate", "explain", "sites", "trace", "locate", "bias", "edit",
            "export", "steer", "evaluate", "robustness", "compare", "studies"]  # fmt: skip
PANELS = ["The whole loop", "Look", "Find", "Change", "Check", "Keep"]
GROUP = typer.main.get_command(app)
BENCH = GROUP.commands["bench"]


def examples(text):
    """The command lines of a help text that start with denoscope, each in words."""
    found = re.findall(
        r"(?:Example|Start here|Then try your own words):\s+(denoscope.*?)(?:\n\s*\n|$)", text, re.S
    )
    return [shlex.split(line) for line in found]


def test_the_commands_are_these_in_the_order_of_use():
    assert list(GROUP.commands) == [*COMMANDS, "direction", "features", "bench", "plan"]
    assert list(BENCH.commands) == ["edits"]
    said = call("--help")
    assert said.exit_code == 0
    assert [re.search(rf"^\W*{name} ", said.output, re.M) is not None for name in COMMANDS] == [True] * len(
        COMMANDS
    )
    titles = re.findall(r"─ ([A-Z][\w ]+) ─", said.output)
    assert [t for t in titles if t in PANELS] == PANELS


def test_the_version_is_told():
    said = call("--version")
    assert (said.exit_code, said.output) == (0, f"denoscope {denoscope.__version__}\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_tells_programs_and_can_be_quiet(name):
    options = {o for p in GROUP.commands[name].params for o in p.opts}
    assert {"--json", "--quiet"} <= options
    assert ({"--device", "--dtype"} <= options) == (name not in ("demo", "studies"))
    assert ({"--seeds", "--seed"} <= options) == (
        name not in ("explain", "sites", "edit", "export", "studies")
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_help_says_what_a_command_does_and_how_it_is_called(name):
    said = call(name, "--help")
    words = " ".join(said.output.split())
    text = inspect.getdoc(GROUP.commands[name].callback)
    assert said.exit_code == 0 and f"denoscope {name} [OPTIONS]" in words.replace("root", "denoscope")
    assert text.split("\n\n")[0].replace("\n", " ") in words
    written = {"sites": "--picture", "studies": "--export"}.get(name, "--output")
    assert all(option in words for option in ("--help", written))


@pytest.mark.parametrize("name", [n for n in COMMANDS if n != "demo"])
def test_the_examples_of_a_command_can_be_typed(name):
    found = examples(inspect.getdoc(GROUP.commands[name].callback))
    assert found
    for program, command, *rest in found:
        assert (program, command) == ("denoscope", name)
        GROUP.commands[name].make_context(name, rest)  # raises for an option that is not there


def test_the_examples_of_a_comparison_can_be_typed():
    found = examples(inspect.getdoc(BENCH.commands["edits"].callback))
    assert len(found) == 2
    for *before, group, command in (line[:3] for line in found):
        assert (*before, group, command) == ("denoscope", "bench", "edits")
    for line in found:
        BENCH.commands["edits"].make_context("edits", line[3:])


@pytest.mark.parametrize("name", ["train", "browse"])
def test_the_examples_about_features_can_be_typed(name):
    command = GROUP.commands["features"].commands[name]
    found = examples(inspect.getdoc(command.callback))
    assert len(found) == 2
    for line in found:
        assert line[:3] == ["denoscope", "features", name]
        command.make_context(name, line[3:])


@pytest.mark.parametrize("name", ["locate", "edit", "explain", "features"])
def test_the_examples_of_a_plan_can_be_typed(name):
    command = GROUP.commands["plan"].commands[name]
    lines = examples(inspect.getdoc(command.callback))
    assert lines
    for line in lines:
        assert line[:3] == ["denoscope", "plan", name]
        command.make_context(name, line[3:])
    options = {o for p in command.params for o in p.opts}
    assert {"--full-size", "--gpu", "--pace", "--json"} <= options
    if name in ("locate", "explain"):
        there = {o for p in GROUP.commands[name].params for o in p.opts}
        assert options >= there - {"--output", "-o", "--table", "--image", "--seed"}


def test_a_comparison_tells_programs_and_can_be_quiet():
    options = {o for p in BENCH.commands["edits"].params for o in p.opts}
    assert {"--json", "--quiet", "--seeds", "--judge", "--quick", "--methods", "--concepts"} <= options


def test_the_first_words_of_a_new_user_can_be_typed():
    first, second = examples(re.sub(r"\[/?(?:bold)?\]", "", app.info.help))
    assert first == ["denoscope", "demo"]
    assert second[:2] == ["denoscope", "investigate"]
    GROUP.commands["investigate"].make_context("investigate", second[2:])


def test_help_waits_for_no_heavy_library():
    heavy = ["torch", "numpy", "pandas", "xarray", "diffusers", "transformers", "plotly", "jinja2"]
    code = f"import sys, denoscope.cli; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
