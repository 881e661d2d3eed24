"""Sparse codes say what dense ones say, and read k rows of the decoder."""

import pytest
import torch

from denoscope.models.errors import UsageError
from denoscope.probes.dictionary.codes import Codes, above, batch_top_k, joined, top_k

PRE = torch.randn(7, 12, generator=torch.Generator().manual_seed(0))
DECODER = torch.randn(12, 5, generator=torch.Generator().manual_seed(1))


def dense_top_k(pre, k):
    """With a dense tensor, negative values put to 0 before the selection."""
    top = pre.relu().topk(k)
    return torch.zeros_like(pre).scatter(-1, top.indices, top.values)


@pytest.mark.parametrize("k", [1, 3, 12])
def test_top_k_is_the_dense_one_whether_negatives_go_before_or_after(k):
    codes = top_k(PRE, k)
    assert torch.equal(codes.dense(), dense_top_k(PRE, k))
    assert bool(((codes.dense() != 0).sum(-1) <= k).all())
    assert torch.allclose(codes.times(DECODER), dense_top_k(PRE, k) @ DECODER, atol=1e-6)


def test_batch_top_k_takes_the_largest_of_all_rows():
    codes = batch_top_k(PRE, 2)
    kept = PRE.flatten().topk(14).values.min()
    assert torch.equal(codes.dense(), PRE * (kept <= PRE))
    assert codes.l0 == 2


def test_a_threshold_keeps_what_lies_above_it():
    threshold = torch.linspace(-1, 1, 12)
    assert torch.equal(above(PRE, threshold).dense(), PRE * ((threshold < PRE) & (PRE > 0)))
    nothing = above(PRE, torch.full((12,), 9.0))
    assert nothing.l0 == 0
    assert torch.equal(nothing.times(DECODER), torch.zeros(7, 5))


def test_some_features_are_those_of_all_and_rows_may_be_encoded_in_parts():
    codes = joined([above(PRE[:3], torch.zeros(12)), above(PRE[3:], torch.zeros(12))], (7,))
    assert torch.equal(codes.dense(), PRE.relu())
    assert torch.equal(codes.of([5, 0]), PRE.relu()[:, [5, 0]])


def test_gradients_are_those_of_the_dense_product():
    def grads(make):
        pre, decoder = PRE.clone().requires_grad_(), DECODER.clone().requires_grad_()
        return torch.autograd.grad(make(pre, decoder).square().sum(), (pre, decoder))

    sparse = grads(lambda pre, decoder: top_k(pre, 3).times(decoder))
    dense = grads(lambda pre, decoder: dense_top_k(pre, 3) @ decoder)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(sparse, dense, strict=True))


@pytest.mark.misshapen
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: top_k(PRE, 2).of([3, 12, -1]), r"features 0 to 11; \[12, -1\] are not"),
        (lambda: top_k(PRE, 2).of([3, 3]), r"\[3\] are named twice"),
        (lambda: top_k(PRE, 2).of([]), "none is named"),
        (lambda: Codes(torch.ones(2), torch.tensor([0, 5]), torch.tensor([0]), (1,), 5), "beyond 0 to 4"),
        (lambda: Codes(torch.ones(2), torch.tensor([0]), torch.tensor([0]), (1,), 5), "values .entry."),
    ],
)
def test_what_cannot_be_is_told(call, message):
    with pytest.raises(UsageError, match=message):
        call()
