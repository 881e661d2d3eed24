"""The classifier, and integrated gradients in one product: equal to captum's."""

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients

from denoscope.analysis.features.attributing import POINTS, attributed, slopes
from denoscope.analysis.features.telling import _regression, classifier
from tests.probes.dictionary.worlds import PLANTED, random_dictionary


@pytest.fixture
def world():
    """A dictionary over [token, channel], codes, a baseline, and a classifier of three classes."""
    d = random_dictionary(PLANTED)
    g = torch.Generator().manual_seed(0)
    x, other = torch.randn(5, 4, 16, generator=g), torch.randn(5, 4, 16, generator=g)
    weights, bias = 0.1 * torch.randn(3, 4, 16, generator=g), torch.randn(3, generator=g)
    return d, x, d.encode(x).dense(), d.encode(other).dense(), weights, bias


@pytest.mark.parametrize("paired", [False, True])
def test_one_product_equals_captum(world, paired):
    d, x, codes, other, weights, bias = world
    baseline = other if paired else torch.zeros_like(codes)
    classes = torch.tensor([0, 1, 2, 0, 1])
    rest = x - d.decode(codes)  # what the dictionary does not explain, and it stays

    def probability(z, which, left):
        return ((d.decode(z) + left).flatten(1) @ weights.flatten(1).mT + bias).softmax(-1)[:, which]

    logits = x.flatten(1) @ weights.flatten(1).mT + bias
    ours = attributed(codes - baseline, slopes(weights, d.decoder), logits, classes)
    for i in range(len(x)):
        own = (int(classes[i]), rest[[i]])
        theirs = IntegratedGradients(probability).attribute(
            codes[[i]], baseline[[i]], n_steps=POINTS, additional_forward_args=own
        )
        torch.testing.assert_close(ours[i], theirs[0], rtol=1e-3, atol=2e-5)
        gap = probability(codes[[i]], *own) - probability(baseline[[i]], *own)
        torch.testing.assert_close(ours[i].sum(), gap[0], rtol=1e-3, atol=1e-4)  # complete


def test_the_fit_in_the_span_is_the_fit_of_all_numbers():
    g = torch.Generator().manual_seed(1)
    labels = np.arange(24) % 3
    x = torch.randn(24, 40, generator=g)
    x[:, 0] += torch.from_numpy(labels).float()
    found = classifier(x.view(24, 8, 5), labels, np.arange(24), 3)
    standard = ((x - x.mean(0)) / x.std(0, correction=0) / 40**0.5).double().numpy()
    whole = _regression().fit(standard, labels)
    ours = x.double().numpy() @ found.weights.T + found.bias
    np.testing.assert_allclose(
        ours - ours.mean(1, keepdims=True), whole.decision_function(standard), atol=5e-2
    )


def test_a_planted_class_is_told_and_shuffled_labels_are_not():
    g = torch.Generator().manual_seed(2)
    labels = np.arange(80) % 2
    x = torch.randn(80, 6, 4, generator=g)
    x[:, 0, 0] += 8 * torch.from_numpy(labels).float()
    for groups in (np.arange(80), np.arange(80) // 2):  # alone, and in pairs
        found = classifier(x, labels, groups, 2)
        assert found.right.mean() > 0.95
        assert 0.3 < found.shuffled.mean() < 0.7
        said = (x.flatten(1).double().numpy() @ found.weights.T + found.bias).argmax(1)
        assert (said == labels).all()
        assert abs(found.weights[1, 0]) == abs(found.weights).max()
