"""Calling the command line as a user does."""

from __future__ import annotations

from typer.testing import CliRunner

from denoscope.cli import app

ABOUT = ["--about", "cat", "--change-to", "dog"]


def call(*args):
    return CliRunner().invoke(app, [str(a) for a in args])


def one_line(result, code, *parts):
    """The command failed, and its last words are a single line that says what was wrong."""
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    said = [line for line in result.stderr.splitlines() if line.strip()]
    assert [line for line in said if line.startswith("error: ")] == said[-1:], result.stderr
    for part in parts:
        assert part in said[-1]
