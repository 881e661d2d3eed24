"""Interventions as values, and the rows that they are given and give back."""

from __future__ import annotations

import pytest
import torch

from denoscope.models.places.account import Account, AccountError
from denoscope.models.places.intervention import Intervention, Spec, intervening
from denoscope.models.run.context import When
from denoscope.probes.intervene import zero

MID = "unet/mid.attn.0.0/resid.post"
X = torch.tensor([[1.0, -0.0]])


def same(x, _):
    return x


def test_equal_specs_have_one_digest():
    digest = Spec("scale", {"by": 2.0, "of": X}).digest
    assert Spec("scale", {"of": X.clone(), "by": 2.0}).digest == digest
    others = [
        Spec("zero", {"by": 2.0, "of": X}),
        Spec("scale", {"by": 3.0, "of": X}),
        Spec("scale", {"by": 2.0, "of": X.flatten()}),
        Spec("scale", {"by": 2.0, "of": X.view(torch.int32)}),
        Spec("scale", {"by": 2.0, "of": X.abs()}),
        Spec("scale", {"by": 2.0}),
    ]
    assert len({digest, *(spec.digest for spec in others)}) == 7


def test_keys_are_equal_for_what_does_the_same():
    spec = Spec("scale", {"by": 2.0})
    one = Intervention(MID, same, When({1, 2}, "uncond", (0,)), spec)
    assert (
        Intervention(MID, lambda x, _: x, When([2, 1], "uncond", (0,)), Spec("scale", {"by": 2.0})).key
        == one.key
    )
    others = [
        Intervention("unet/out/eps", same, one.when, spec),
        Intervention(MID, same, When({1, 3}, "uncond", (0,)), spec),
        Intervention(MID, same, When(None, "uncond", (0,)), spec),
        Intervention(MID, same, When({1, 2}, "cond", (0,)), spec),
        Intervention(MID, same, When({1, 2}, "uncond", (1,)), spec),
        Intervention(MID, same, When({1, 2}, "uncond"), spec),
        Intervention(MID, same, one.when, Spec("scale", {"by": 3.0})),
        Intervention(MID, same, one.when),
        Intervention(MID, lambda x, _: x, one.when),
    ]
    assert len({one.key, *(other.key for other in others)}) == 10


def test_some_samples_alone_at_the_same_steps_of_the_same_branch():
    some = Intervention(MID, same, When({1, 2}, "uncond")).on(3, 1)
    assert some.when == When({1, 2}, "uncond", (3, 1)) and some.fn is same


@torch.no_grad()
@pytest.mark.parametrize("rows", [(0, 2), (2, 0), (1, 2), (2, 1), (1,), None], ids=str)
def test_each_row_is_given_back_to_its_own_sample(tiny, rows):
    """Whole batches, runs of rows and rows apart; another value for each branch and sample."""
    seen = {}

    def numbered(x, c):
        values = torch.tensor([{"uncond": 10.0, "cond": 20.0}[c.branch] + s for s in c.samples])
        return values.view(-1, 1, 1).expand_as(x)

    def look(x, c):
        seen[c.branch] = x[:, 0, 0].tolist(), bool((x == x[:, :1, :1]).all(-1).all(-1)[0])

    change = Intervention(MID, numbered, When(None, None, rows))
    watch = Intervention(MID, look, When(None, None))
    settings = {"seeds": [0, 1, 2], "steps": 1, "guidance": 2.0}
    list(tiny.sample(["a", "b", "c"], interventions=[watch], **settings))
    plain = dict(seen)
    list(tiny.sample(["a", "b", "c"], interventions=[change, watch], **settings))
    for branch, base in (("uncond", 10.0), ("cond", 20.0)):
        chosen = range(3) if rows is None else rows
        expected = [base + s if s in chosen else plain[branch][0][s] for s in range(3)]
        assert seen[branch][0] == pytest.approx(expected, abs=1e-5)


def test_an_account_of_ones_own_is_left_open(tiny):
    never = zero(MID, When({7}))
    account = Account([never])
    with torch.no_grad(), intervening(tiny, never, account=account) as own:
        tiny.denoise(tiny.noise([0]), tiny.step_at(t=500), ["a"])
    assert own is account and account.lines[0].calls == 0
    with pytest.raises(AccountError, match="never acted"):
        account.close()
