"""Progress: one way to tell it; a bar comes only where somebody watches something long."""

import io
import sys
from types import SimpleNamespace

import pytest
from rich.console import Console

from denoscope.models import progress
from denoscope.models.progress import bars, part, quiet, showing


class Screen(io.StringIO):
    def isatty(self):
        return True


def with_stderr(monkeypatch, file):
    """For our module alone: pytest puts its own back between a fixture and its test."""
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=file, modules=sys.modules))
    return file


@pytest.fixture
def screen(monkeypatch):
    return with_stderr(monkeypatch, Screen())


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_the_callers_own_is_told_and_nothing_is_shown(screen):
    told = []
    with showing(lambda *x: told.append(x)) as show:
        show(1, 3, "sampling")
    assert told == [(1, 3, "sampling")] and screen.getvalue() == ""


def test_a_bar_comes_by_itself_after_two_seconds_and_goes(screen, clock):
    with showing() as show:
        show(1, 9, "sampling")
        clock[0] += 1.9
        show(2, 9, "sampling")
        assert screen.getvalue() == ""
        clock[0] += 0.2
        show(3, 9, "sampling")
        assert "sampling" in screen.getvalue() and "3/9" in screen.getvalue()
        clock[0] += 1
        show(8, 10, "sampling")  # the total may grow
    assert screen.getvalue().endswith("\r")


@pytest.mark.parametrize(("said", "shown"), [("1", False), ("0", True), ("", True)])
def test_the_environment_keeps_bars_away_in_notebooks_too(screen, clock, monkeypatch, said, shown):
    monkeypatch.setenv("TQDM_DISABLE", said)
    made = []
    monkeypatch.setattr(progress, "_in_notebook", lambda: True)
    monkeypatch.setattr(
        progress,
        "_bar",
        lambda **how: (
            made.append(how["desc"])
            or SimpleNamespace(n=0, total=0, update=lambda _: None, close=lambda: None)
        ),
    )
    with showing() as show:
        clock[0] += 5
        show(1, 9, "sampling")
    assert made == ["sampling"] * shown


def test_what_ends_as_the_time_is_up_has_no_bar(screen, clock):
    with showing() as show:
        clock[0] += 5
        show(9, 9, "sampling")
        assert screen.getvalue() == ""
        show(8, 9, "painting")
        assert "painting" in screen.getvalue()


def test_a_bar_goes_when_the_work_fails(screen, clock):
    with pytest.raises(ZeroDivisionError), showing() as show:
        clock[0] += 5
        show(1, 9, "sampling")
        raise ZeroDivisionError
    assert screen.getvalue().endswith("\r")


def test_where_nobody_watches_there_is_no_bar(monkeypatch):
    with_stderr(monkeypatch, io.StringIO())
    with showing() as show:
        assert show is quiet


def test_a_notebook_watches(monkeypatch):
    import IPython

    with_stderr(monkeypatch, io.StringIO())
    monkeypatch.setattr(IPython, "get_ipython", lambda: type("Shell", (), {"kernel": 1})())
    assert progress._watched()
    monkeypatch.setattr(IPython, "get_ipython", lambda: None)
    assert not progress._watched()


@pytest.mark.parametrize("widgets", [True, False])
def test_a_bar_in_a_notebook_is_a_widget_or_text_and_never_red(monkeypatch, clock, widgets):
    import IPython

    errors, out, made = io.StringIO(), io.StringIO(), []
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=errors, stdout=out, modules=sys.modules))
    monkeypatch.setattr(IPython, "get_ipython", lambda: type("Shell", (), {"kernel": 1})())
    monkeypatch.setattr(progress, "find_spec", lambda name: name == "ipywidgets" and widgets or None)

    class Widget(progress.tqdm):
        def __init__(self, **settings):
            made.append(settings)
            super().__init__(**settings, file=io.StringIO())

    real = progress.import_module
    fake = SimpleNamespace(tqdm=Widget)
    monkeypatch.setattr(progress, "import_module", lambda n: fake if n == "tqdm.notebook" else real(n))
    with showing() as show:
        show(0, 9, "sampling")
        clock[0] += 5
        show(3, 9, "sampling")
    assert [m["desc"] for m in made] == (["sampling"] if widgets else [])
    assert errors.getvalue() == "" and ("3/9" in out.getvalue()) is not widgets


def test_a_part_is_told_as_the_whole():
    told = []
    show = part(lambda *x: told.append(x), before=10, size=5, total=20)
    show(1, 2, "a")
    show(2, 2, "b")
    part(lambda *x: told.append(x), 0, 4, 4, what="all")(0, 0, "inner")
    assert told == [(12, 20, "a"), (15, 20, "b"), (0, 4, "all")]


def test_the_command_line_has_a_bar_for_each_kind_of_work():
    out = Screen()
    with bars(Console(file=out, width=100, force_terminal=True, color_system=None)) as show:
        show(0, 2, "looking")
        show(2, 2, "looking")
        show(1, 3, "checking [x]")
    text = out.getvalue()
    assert "2/2" in text and "1/3" in text and "checking [x]" in text and "✓" in text
