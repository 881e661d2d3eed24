"""Pictures are checked before anything is computed of them."""

from __future__ import annotations

import pytest
import torch

from denoscope.models.images import checked_images

X = torch.rand(2, 3, 4, 6, generator=torch.Generator().manual_seed(0))


def checked(images, size=(4, 6)):
    return checked_images(images, 3, size, "m")


def test_they_are_moved_to_the_scale_of_autoencoders():
    assert torch.equal(checked(X), 2 * X - 1)
    ends = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 3, 4, 6)
    assert checked(ends).unique().tolist() == [-1.0, 1.0]
    assert checked(X.half()).dtype == torch.float32


@pytest.mark.parametrize(
    ("images", "size", "message"),
    [
        (X[0], (4, 6), r"images are \(3, 4, 6\); .* \(add the sample axis: images\[None\]\)$"),
        (X[None], (4, 6), r"images are \(1, 2, 3, 4, 6\); give \[sample, 3, height, width\]$"),
        (X[:, :2], (4, 6), r"images are \(2, 2, 4, 6\); give"),
        (X[:0], (4, 6), r"images are \(0, 3, 4, 6\); give"),
        (X, (4, 5), r"images are 4 by 6 pixels, but m takes 4 by 5; .*\(4, 5\).*size=\(4, 6\)"),
        (X, (3, 6), "images are 4 by 6 pixels, but m takes 3 by 6"),
        (X, (6, 4), "images are 4 by 6 pixels, but m takes 6 by 4"),
        (X, (), "m paints no pictures"),
        (X / 0, (4, 6), "images hold NaN or infinite"),
        (X * float("nan"), (4, 6), "images hold NaN or infinite"),
        (X - 0.01, (4, 6), r"images lie in -0\.0.*; give them in 0\.\.1"),
        (X + 0.01, (4, 6), r"images lie in .*\.\.1\.0.*; give them in 0\.\.1"),
    ],
)
def test_what_does_not_fit_is_refused(images, size, message):
    with pytest.raises(ValueError, match=message):
        checked(images, size)


@pytest.mark.parametrize(
    ("images", "kind"), [(X.to(torch.uint8), "torch.uint8"), (X.bool(), "torch.bool"), (X.tolist(), "list")]
)
def test_what_is_no_tensor_of_numbers_is_refused(images, kind):
    with pytest.raises(TypeError, match=rf"images are {kind}; give a float tensor \[sample, 3,"):
        checked(images)
