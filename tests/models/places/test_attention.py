"""Probabilities are those of the fused call, whatever its mask; a tap puts back what handlers return."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention as fused
from torch.overrides import TorchFunctionMode

from denoscope.models.places.attention import AttentionTap, attention_probs, clear_taps, put

ROWS, HEADS, QUERIES, KEYS, WIDTH = 3, 2, 4, 5, 6
FIRST, LAST = slice(0, 1), slice(2, 3)


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def qkv(queries=QUERIES):
    return (
        drawn(ROWS, HEADS, queries, WIDTH, seed=1),
        drawn(ROWS, HEADS, KEYS, WIDTH, seed=2),
        drawn(ROWS, HEADS, KEYS, WIDTH, seed=3),
    )


SEEN = torch.arange(KEYS) < torch.tensor([5, 3, 1])[:, None]  # how far each row may look
MASKS = {
    "plain": {},
    "scaled": {"scale": 0.7},
    "causal": {"is_causal": True},
    "each row its own": {"attn_mask": SEEN[:, None, None]},
    "added": {"attn_mask": drawn(ROWS, 1, QUERIES, KEYS, seed=4), "scale": 0.7},
    "one for all rows": {"attn_mask": SEEN[None, None, 1:2]},
    "without axes of rows and heads": {"attn_mask": drawn(QUERIES, KEYS, seed=5)},
}
masked = pytest.mark.parametrize("how", MASKS.values(), ids=MASKS)


def tapped(handlers, *args, **how):
    with AttentionTap(handlers, lambda: True) as tap:
        out = fused(*args, **how)
    assert tap.calls == 1
    return out


@masked
def test_probabilities_give_the_fused_output(how):
    q, k, v = qkv()
    probs = attention_probs(q, k, how.get("attn_mask"), how.get("is_causal", False), how.get("scale"))
    torch.testing.assert_close(probs.sum(-1), torch.ones(ROWS, HEADS, QUERIES))
    torch.testing.assert_close(probs @ v, fused(q, k, v, **how))


@masked
@pytest.mark.parametrize("rows", [slice(1, 3), [2, 0]], ids=str)
def test_a_tap_shows_the_probabilities_of_some_rows(how, rows):
    q, k, v = qkv()
    seen = []
    out = tapped([("probs", lambda x: seen.append((x.shape, x[rows])))], q, k, v, **how)
    assert torch.equal(out, fused(q, k, v, **how)) and seen[0][0] == (ROWS, HEADS, QUERIES, KEYS)
    torch.testing.assert_close(seen[0][1] @ v[rows], out[rows])


def test_what_is_read_is_what_the_call_gets():
    q, k, v = qkv()
    seen = {}
    kinds = ("z", "v", "k", "q")
    out = tapped([(kind, lambda x, kind=kind: seen.update({kind: x})) for kind in kinds], q, key=k, value=v)
    assert all(seen[kind] is x for kind, x in (("q", q), ("k", k), ("v", v), ("z", out)))


def test_changes_go_into_the_call_and_the_tensors_stay_as_they_were():
    q, k, v = qkv()
    kept = [x.clone() for x in (q, k, v)]
    for i, kind in enumerate("qkv"):
        new = [x.clone() for x in (q, k, v)]
        new[i][2] *= 3
        out = tapped([(kind, lambda x: (LAST, 3 * x[LAST]))], q, k, v)
        assert torch.equal(out, fused(*new)) and not torch.equal(out, fused(q, k, v))
    out = tapped([("z", lambda x: (LAST, 3 * x[LAST]))], q, k, v)
    torch.testing.assert_close(out, fused(q, k, v) * torch.tensor([1.0, 1.0, 3.0]).view(-1, 1, 1, 1))
    assert all(map(torch.equal, (q, k, v), kept))


def test_changed_probabilities_weigh_the_values_as_they_are_by_then():
    q, k, v = qkv()
    even, seen = torch.full((1, HEADS, QUERIES, KEYS), 1 / KEYS), []
    handlers = [
        ("probs", lambda _: (FIRST, even)),
        ("probs", lambda x: seen.append(x[[1, 0]])),
        ("v", lambda x: (slice(0, ROWS), 2 * x)),
    ]
    out = tapped(handlers, q, k, v)
    torch.testing.assert_close(out[0], 2 * v[0].mean(-2, keepdim=True).expand(-1, QUERIES, -1))
    assert torch.equal(out[1:], fused(q, k, 2 * v)[1:])
    torch.testing.assert_close(seen[0], torch.cat([attention_probs(q, k)[1:2], even]))


def test_rows_are_put_into_a_copy():
    x = drawn(3, 2)
    new = torch.zeros(1, 2, dtype=torch.float64)
    y = put(x, (LAST, new))
    assert y.dtype == x.dtype and torch.equal(y[:2], x[:2]) and not y[2].any() and x[2].any()
    assert put(x, None) is x
    assert torch.equal(put(x, ([2, 0], x[:2])), torch.stack([x[1], x[1], x[0]]))


def test_all_rows_in_another_order_go_back_to_their_places():
    x, order = drawn(3, 2), [2, 0, 1]
    assert torch.equal(put(x, (order, x[order])), x)
    assert torch.equal(put(x, (slice(0, 3), 2 * x)), 2 * x)


def test_taps_whose_call_is_over_are_cleared_and_other_modes_stay():
    class Other(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            return func(*args, **(kwargs or {}))

    before = torch._C._len_torch_function_stack()
    dead, alive = AttentionTap([], lambda: False), AttentionTap([], lambda: True)
    with Other() as below:
        dead.on()
        alive.on()
        with Other() as above:
            clear_taps()
            stack = [torch._C._get_function_stack_at(i) for i in range(before, before + 3)]
            assert stack == [below, alive, above]
        alive.off()
    assert torch._C._len_torch_function_stack() == before
