"""Our errors are ours, and still the built-in ones."""

import pytest

from denoscope.models import errors


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
