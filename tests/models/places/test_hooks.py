"""The order of hooks, what is suspended, and the arguments that a place means."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from denoscope.models.places.blocks import Place
from denoscope.models.places.hooks import (
    after_calls,
    argument_of,
    before_calls,
    hooked,
    inputs,
    picked,
    suspended,
)
from denoscope.models.site import Site

SITE = Site("unet/in/text")


class Adds(nn.Module):
    """Takes its arguments by position or by name, and some of them in a dictionary."""

    def forward(self, x, text=None, more=None):
        if x is None:
            raise ZeroDivisionError
        return x + (0 if text is None else text) + (more or {}).get("image", 0)


def test_what_is_called_before_comes_ahead_of_other_hooks():
    module, said = Adds(), []
    module.register_forward_pre_hook(lambda *_: said.append("other"))
    with before_calls(module, lambda args, kwargs: said.append((args, kwargs))):
        module(1, text=2)
    module(1)
    assert said == [((1,), {"text": 2}), "other", "other"]


def test_what_is_called_after_comes_behind_other_hooks_and_after_errors_too():
    module, said = Adds(), []
    module.register_forward_hook(lambda *_: said.append("other"))
    with after_calls(module, lambda: said.append("done"), lambda: said.append("always")):
        module(1)
        with pytest.raises(ZeroDivisionError):
            module(None)
    module(1)
    assert said == ["other", "done", "always", "always", "other"]


class Counts(TorchFunctionMode):
    """How often something is asked of torch."""

    calls = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.calls += 1
        return func(*args, **(kwargs or {}))


HOOKS = {
    "forward": lambda m, f: m.register_forward_hook(f),
    "forward pre": lambda m, f: m.register_forward_pre_hook(f),
    "backward": lambda m, f: m.register_full_backward_hook(f),
    "backward pre": lambda m, f: m.register_full_backward_pre_hook(f),
}


@pytest.mark.parametrize("kind", HOOKS)
@pytest.mark.parametrize("whole", [True, False], ids=["module", "list"])
def test_hooks_of_every_kind_rest_and_come_back(kind, whole):
    net, said = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), []
    HOOKS[kind](net[1], lambda *_: said.append(kind))

    def call():
        net(torch.ones(1, 2, requires_grad=True)).sum().backward()

    with suspended(net if whole else list(net.modules())):
        call()
    assert not said
    call()
    assert said == [kind]


def test_function_modes_rest_too():
    with Counts() as mode:
        with suspended(Adds()):
            torch.ones(1) + 1
        assert mode.calls == 0
        torch.ones(1) + 1
    assert mode.calls > 0


def test_hooks_come_back_after_an_error():
    module, said = Adds(), []
    module.register_forward_hook(lambda *_: said.append(1))
    with pytest.raises(ZeroDivisionError), suspended(module):
        module(None)
    module(1)
    assert said == [1]


def test_an_argument_is_meant_by_its_name_its_place_or_its_entry():
    module = Adds()
    assert argument_of(module, None) == ("x", "") and argument_of(module, 1) == ("text", "")
    assert argument_of(module, "more.image") == ("more", "image")
    with pytest.raises(RuntimeError, match="Adds takes no argument 'words'; it takes x, text, more"):
        argument_of(module, "words")


def test_arguments_are_picked_however_they_are_given():
    module = Adds()
    assert picked(module, SITE, "text", (1, 2), {}) == picked(module, SITE, 1, (1,), {"text": 2}) == 2
    assert picked(module, SITE, "more.image", (1,), {"more": {"image": 5}}) == 5
    assert picked(module, SITE, "more.image", (1, 2, {"image": 5}), {}) == 5
    for args, kwargs in (((1, 2), {}), ((1, 2), {"more": {"text": 3}}), ((1, 2, None), {})):
        with pytest.raises(RuntimeError, match=r"unet/in/text is the argument 'more.image' of Adds"):
            picked(module, SITE, "more.image", args, kwargs)


class Held:
    """As much of a model as hooking asks for: one network, whose one site lies where it is said."""

    def __init__(self, module, port, item=None):
        self.components = {"unet": module}
        self.where = Place(module, port, item, "")

    def place(self, site):
        assert site == SITE
        return self.where

    def places_of(self, sites):
        return [self.place(site) for site in sites]


def doubled(x):
    return slice(0, len(x)), 2 * x


ONE = torch.ones(1, 2)


@pytest.mark.parametrize(
    ("item", "expected"),
    [(None, 2 + 5 + 7), (0, 2 + 5 + 7), (1, 1 + 10 + 7), ("text", 1 + 10 + 7), ("more.image", 1 + 5 + 14)],
)
def test_an_argument_is_changed_by_its_place_its_name_or_its_entry(item, expected):
    module, more = Adds(), {"image": 7 * ONE, "other": 3}
    with hooked(Held(module, "in", item), [(SITE, doubled)]):
        by_name = module(x=ONE, text=5 * ONE, more=more)
        by_place = module(ONE, 5 * ONE, more)
    assert (by_name == expected).all() and (by_place == expected).all()
    assert (more["image"] == 7).all() and more["other"] == 3
    assert (module(ONE, 5 * ONE, more) == 13).all()


class Gives(nn.Module):
    """Its output is what it is given."""

    def forward(self, out):
        return out


@pytest.mark.parametrize(
    ("given", "item", "expected"),
    [
        (ONE, None, 2 * ONE),
        ((ONE,), None, (2 * ONE,)),
        ((ONE, ONE, ONE), 0, (2 * ONE, ONE, ONE)),
        ((ONE, ONE, ONE), 1, (ONE, 2 * ONE, ONE)),
    ],
)
def test_an_output_is_changed_by_its_place(given, item, expected):
    module = Gives()
    with hooked(Held(module, "out", item), [(SITE, doubled)]):
        out = module(given)
    torch.testing.assert_close(out, expected)


def test_one_of_several_outputs_must_be_named():
    module = Gives()
    with hooked(Held(module, "out"), [(SITE, doubled)]):
        with pytest.raises(
            ValueError, match=r"carries several values of shapes \[\(1, 2\), \(1, 2\)\]; name"
        ):
            module((ONE, ONE))
        with pytest.raises(ValueError, match="carries several values of shapes None"):
            module(None)


def test_a_compiled_part_is_refused_only_where_hooks_go():
    module = nn.Sequential(Gives())
    model = Held(module, "out")
    model.components["text_encoder"] = nn.Sequential(Gives())
    model.components["text_encoder"][0].compile(backend="eager")
    with hooked(model, [(SITE, doubled)]):
        assert (module(ONE) == 2).all()
    with inputs(model, SITE) as seen:
        module(ONE)
    assert torch.equal(seen[0], ONE)
    module[0].compile(backend="eager")
    with hooked(model, [(SITE, doubled)]):  # around what was compiled, hooks act
        assert (module(ONE) == 2).all()
    module.compile(backend="eager")
    for context in (hooked(model, [(SITE, doubled)]), inputs(model, SITE)):
        with pytest.raises(RuntimeError, match="unet was compiled"), context:
            pass
