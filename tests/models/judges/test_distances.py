"""Fréchet and kernel distances between sets of features."""

import pytest
import torch

from denoscope.models.judges.distances import frechet, kernel_distance


def draw(n: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(seed)) + shift


def test_equal_sets_are_at_no_distance():
    x = draw(40, 0)
    assert kernel_distance(x, x.clone()) == 0
    assert frechet(x, x.clone()) == pytest.approx(0, abs=1e-6)


def test_frechet_is_that_of_two_gaussians():
    # of independent features: squared difference of means and of standard deviations
    x, y = draw(4000, 0), 2 * draw(4000, 1) + 3
    assert frechet(x, y) == pytest.approx(4 * (3**2 + 1), rel=0.05)


def test_the_kernel_distance_is_the_formula_by_loops():
    x, y = draw(5, 0), draw(5, 1, 1.0)

    def k(a, b):
        return float((a.double() @ b.double() / 4 + 1) ** 3)

    pairs = [(i, j) for i in range(5) for j in range(5) if i != j]
    total = sum(k(x[i], x[j]) + k(y[i], y[j]) - k(x[i], y[j]) - k(x[j], y[i]) for i, j in pairs)
    assert kernel_distance(x, y) == pytest.approx(total / 20, rel=1e-12)


def test_the_kernel_distance_has_no_bias_at_few_pictures_and_frechet_has():
    kernel = [kernel_distance(draw(6, 2 * s), draw(6, 2 * s + 1)) for s in range(300)]
    biased = [frechet(draw(6, 2 * s), draw(6, 2 * s + 1)) for s in range(300)]
    mean, error = torch.tensor(kernel).mean(), torch.tensor(kernel).std() / 300**0.5
    assert abs(float(mean)) < 3 * float(error)
    assert min(biased) > 0.2


@pytest.mark.parametrize("others", [1, 3])
def test_sets_that_cannot_be_compared(others):
    with pytest.raises(ValueError, match=f"sets of 1 and {others} pictures"):
        kernel_distance(draw(1, 0), draw(others, 1))


def test_one_picture_has_no_covariance():
    with pytest.raises(ValueError, match="sets of 1 and 3 pictures; give at least 2"):
        frechet(draw(1, 0), draw(3, 1))
