"""Methods by name."""

from __future__ import annotations

import inspect

import pytest

from denoscope import editing
from denoscope.bench.methods import METHODS, NAMES, SETTINGS, chosen

pytestmark = pytest.mark.stress  # each is long; make stress

SITE = "unet/mid.attn.0.0/cross_attn.out"


def test_the_names():
    assert [m.name for m in chosen(None)] == list(METHODS)
    assert len(METHODS) == 10


@pytest.mark.parametrize("name", NAMES)
def test_each_name_is_a_function_of_ours_and_its_settings_are_there(name):
    function = inspect.unwrap(getattr(editing, name.partition("/")[0]))
    assert set(SETTINGS.get(name, {})) <= set(inspect.signature(function).parameters)


# the two that optimise take longer; so small a model leaves no room for what null-space edits hold
@pytest.mark.parametrize("name", [n for n in NAMES if not n.startswith(("refact", "memit", "nullspace"))])
def test_a_named_method_makes_the_edit_of_its_function(tiny, name):
    (method,) = chosen([name])
    requests = {"cat": "red cat"}
    more = {"weights": [SITE]} if method.where else {}
    base = getattr(editing, name.partition("/")[0])
    expected = base(tiny, requests, **SETTINGS.get(name, {}), **more)
    assert method.edit(tiny, requests, [SITE]) == expected


def test_a_function_of_a_users_own(tiny):
    (method,) = chosen({"mine": lambda model, requests: editing.quickfix(model, requests, ridge=1.0)})
    assert method.name == "mine" and not method.where
    assert method.edit(tiny, {"cat": "dog"}).note["ridge"]["text_encoder/layer.0/self_attn.out"] == 1.0


def test_what_is_refused(tiny):
    with pytest.raises(LookupError, match="no method 'quickfux' to compare; .*quickfix"):
        chosen(["quickfux"])
    with pytest.raises(ValueError, match="give at least one, each once"):
        chosen([])
    with pytest.raises(ValueError, match="give at least one, each once"):
        chosen(["uce", "uce"])
    (bad,) = chosen({"bad": lambda *_: "an edit"})
    with pytest.raises(ValueError, match="the method 'bad' returned str; return an Edit"):
        bad.edit(tiny, {"cat": "dog"})
