"""Our errors are ours, and still the built-in ones."""

import contextlib
import dataclasses
import io
import re
import traceback
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

from denoscope import Intervention, load, trace
from denoscope.models import errors
from denoscope.models.synthetic.tiny import tiny_sd


@pytest.mark.parametrize(
    ("name", "builtin"),
    [
        ("UsageError", ValueError),
        ("WrongTypeError", TypeError),
        ("NotFoundError", LookupError),
        ("StateError", RuntimeError),
        ("MissingFileError", FileNotFoundError),
        ("FileInTheWayError", FileExistsError),
    ],
)
def test_each_is_caught_as_ours_and_as_the_built_in_one(name, builtin):
    ours = getattr(errors, name)
    for kind in (ours, builtin, errors.DenoscopeError):
        with pytest.raises(kind, match="'x' is no site; give one of these"):
            raise ours("'x' is no site; give one of these")
    others = {ValueError, TypeError, LookupError, RuntimeError} - {builtin}
    assert not issubclass(ours, tuple(others))


def test_a_missing_name_is_told_as_it_was_written():
    """KeyError would show the quoted repr of its message."""
    assert str(errors.NotFoundError("no site 'a'")) == "no site 'a'"


def shown_by_ipython(code: str) -> str:
    """What a cell prints that ends in an error."""
    shell = InteractiveShell()
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        shell.run_cell(code)
    return re.sub(r"\x1b\[[0-9;]*m", "", printed.getvalue())


OPENED = """import denoscope
from denoscope.models.synthetic.tiny import tiny_sd
model = denoscope.load(tiny_sd())
"""


def test_a_notebook_shows_an_error_of_ours_in_a_few_lines() -> None:
    lines = shown_by_ipython(f"{OPENED}denoscope.trace(model, 'a cat', seeds=[0])").strip().splitlines()
    assert lines[0].startswith("WrongTypeError: prompts is the single string 'a cat'")
    assert "line 4, in <module>: denoscope.trace(model, 'a cat', seeds=[0])" in lines[-2]
    assert len(lines) < 6


def test_a_notebook_shows_an_error_inside_a_hook_with_its_site_and_function() -> None:
    code = """
def halve(x, context):
    return x @ x.nothing

denoscope.trace(model, ["a cat"], seeds=[0], steps=2, interventions=[
    denoscope.Intervention("unet/mid.attn.0.0/mlp.out", halve)])
"""
    lines = shown_by_ipython(OPENED + code).strip().splitlines()
    assert lines[0] == "AttributeError: 'Tensor' object has no attribute 'nothing'"
    assert lines[1] == "in halve, given (1, 16, 16) at unet/mid.attn.0.0/mlp.out, step 0"
    assert "in halve: return x @ x.nothing" in lines[3]
    assert len(lines) == 5


def test_a_foreign_error_in_a_hook_stays_what_it_was_and_says_where() -> None:
    class Stop(Exception): ...

    def stop(x: Any, context: Any) -> None:
        raise Stop

    model = load(tiny_sd())
    act = Intervention("unet/mid.attn.0.0/mlp.out", stop)
    with pytest.raises(Stop) as caught:
        trace(model, ["a cat"], seeds=[0], steps=2, interventions=[act])
    assert "mlp.out, step 0" in caught.value.__notes__[0]
    assert len(traceback.extract_tb(caught.value.__traceback__)) > 10  # nothing is lost


@dataclasses.dataclass(frozen=True)
class Fussy:
    """Its constructor is made while Python runs, and has no line."""

    x: int = 0

    def __post_init__(self) -> None:
        raise errors.UsageError("give something else")


def test_made_constructors_are_no_lines_of_the_callers() -> None:
    with pytest.raises(errors.UsageError) as caught:
        Fussy()
    lines = caught.value._render_traceback_()
    assert lines[0] == "UsageError: give something else" and len(lines) == 4
    assert "in test_made_constructors_are_no_lines_of_the_callers: Fussy()" in lines[1]
    assert "<string>" not in "".join(lines) and "in __post_init__" in lines[2]
