"""Small tables on the device that computes: made once, equal to the lists that they stand for."""

from __future__ import annotations

import torch

from denoscope.models.run.tables import indices, table

CPU = torch.device("cpu")


def test_rows_are_those_of_the_list_or_slice():
    x = torch.arange(12.0).view(4, 3)
    for rows in ([2, 0], [3], slice(1, 3)):
        assert torch.equal(x[indices(rows, CPU)], x[rows])
    y, z = x.clone(), x.clone()
    y[indices([3, 0], CPU)], z[[3, 0]] = x[:2], x[:2]
    assert torch.equal(y, z)


def test_a_table_is_made_once_and_gradients_flow_past_it():
    table.cache_clear()
    with torch.inference_mode():
        first = table((1, 0), CPU)
    assert table((1, 0), CPU) is first and not first.is_inference()
    x = torch.ones(2, requires_grad=True)
    (x[first] * torch.tensor([1.0, 3.0])).sum().backward()
    assert x.grad.tolist() == [3.0, 1.0]


def test_rows_of_numbers_in_a_format():
    assert table(((1, 2), (3, 4)), CPU, torch.float16).tolist() == [[1, 2], [3, 4]]
