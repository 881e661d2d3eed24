"""What goes on in a model: contexts inside contexts, structure that is looked at anew when it changed."""

from __future__ import annotations

import pytest
from torch import nn

from denoscope.models.places.account import Account, AccountError
from denoscope.models.places.blocks import Place
from denoscope.models.places.intervention import Intervention
from denoscope.models.places.live import Live
from denoscope.models.run.context import TEXT, Call
from denoscope.models.run.levels import Step
from denoscope.models.site import Site

SITE = Site("unet/mid/out")
OUTER = Call("unet", {"cond": slice(0, 1)}, (Step(0, 900.0, 5.0),))
INNER = Call(TEXT, {"cond": slice(0, 1)})


def watched(live):
    """An account of one site, which every call of the UNet should reach."""
    return live.accounted(Account([Intervention(SITE, lambda x, _: x)]))


def test_a_call_inside_a_call_leaves_the_outer_one():
    live = Live()
    with live.calling(OUTER):
        with live.calling(INNER):
            assert live.call is INNER
        assert live.call is OUTER
        with pytest.raises(ZeroDivisionError), live.calling(INNER):
            raise ZeroDivisionError
        assert live.call is OUTER
    assert live.call is None


def test_accounts_are_kept_of_the_calls_of_their_context_alone():
    live = Live()
    with watched(live):
        with live.accounted(Account([])):
            assert live.watched
        with pytest.raises(AccountError, match="was not reached at step 0"), live.calling(OUTER):
            pass
        with live.calling(INNER):  # another part
            pass
    assert not live.watched and live.call is None
    with live.calling(OUTER):
        pass


def test_accounts_sleep_while_suspended():
    live = Live()
    with watched(live):
        with live.suspending():
            with live.suspending():
                pass
            assert live.suspended
            with live.calling(OUTER):
                pass
        assert not live.suspended
        with pytest.raises(AccountError, match="was not reached"), live.calling(OUTER):
            pass


def test_calls_while_suspended_do_not_count_for_the_account():
    live, account = Live(), Account([Intervention(SITE, lambda x, _: x)])
    with live.accounted(account), live.suspending(), live.calling(OUTER):
        pass
    account.close()  # nothing was called, so nothing is missing


def test_another_network_is_called_for_as_long_as_it_is_said():
    live, first, second = Live(), nn.Identity(), nn.Identity()
    with live.another(first):
        with live.another(second):
            assert live.network is second
        assert live.network is first
        with live.another(None):
            assert live.network is None
    assert live.network is None


def test_places_are_looked_for_anew_when_the_structure_changed():
    live, net = Live(), nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    parts, found = {"unet": net}, []

    def resolve():
        found.append({SITE: Place(net[0], "out", None, "0")})
        return found[-1]

    assert live.places(parts, resolve) is found[0] and net.training
    live.shapes[SITE] = (2,)
    net.train()
    assert live.places(parts, resolve) is found[0] and len(found) == 1 and live.shapes
    net[0] = nn.Linear(2, 2)
    with live.calling(INNER):  # as they were when the call began
        assert not net.training
        assert live.places(parts, resolve) is found[0]
    assert live.places(parts, resolve) is found[1] and not live.shapes
    assert net.training
    parts["vae"] = nn.Identity()
    assert live.places(parts, resolve) is found[2]
