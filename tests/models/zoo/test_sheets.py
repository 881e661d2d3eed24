"""Sheets keep every value of every picture, and their order."""

import pytest
import torch

from denoscope.models.zoo.sheets import packed, unpacked


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
@pytest.mark.parametrize(("number", "channels"), [(1, 3), (5, 4), (27, 3)])
def test_pictures_come_back_to_the_bit(kind, number, channels):
    pictures = torch.randint(0, 256, (number, channels, 64, 64), dtype=torch.uint8)
    if channels == 4:
        pictures[:, 3, :32] = 0  # colours under no opacity are kept too
    assert torch.equal(unpacked(packed(pictures, kind), number), pictures)


def test_masks_take_a_bit_a_pixel():
    masks = (torch.rand(30, 1, 64, 64) > 0.5).byte() * 255
    file = packed(masks, "PNG")
    assert torch.equal(unpacked(file, 30), masks)
    assert len(file) < 50 * 64 * 64 / 8 + 2000  # two rows of 25
