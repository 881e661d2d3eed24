"""Pictures are prepared as transformers' own processors do it, and gradients reach them."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from PIL import Image

from denoscope.models.judges.preparing import Preparation, check_pictures, read_preparation

PLAIN = {"size": {"height": 8, "width": 8}, "image_mean": [0.5] * 3, "image_std": [0.25] * 3}
LEVEL = 1 / 255


def written(folder, **told):
    (folder / "preprocessor_config.json").write_text(json.dumps(told))
    return read_preparation(folder, "no")


@pytest.mark.parametrize("size", [(40, 64), (64, 40), (16, 16), (24, 24), (25, 31)])
@pytest.mark.parametrize("name", ["CLIP", "Siglip", "ViT", "DeiT"])
def test_it_equals_the_processor_but_for_rounding_to_8_bits(name, size, tmp_path):
    """Of noise: two roundings of half a level each, in rows and in columns.

    Of tall pictures noise that does not overshoot: that is cut off between the passes, whose order differs.
    """
    sides = {
        "CLIP": {"size": {"shortest_edge": 24}, "crop_size": {"height": 24, "width": 24}},
        "DeiT": {"size": {"height": 28, "width": 28}, "crop_size": {"height": 24, "width": 24}},
    }.get(name, {"size": {"height": 24, "width": 24}})
    processor = getattr(transformers, f"{name}ImageProcessor")(**sides)
    processor.save_pretrained(tmp_path)
    low, high = (0, 256) if size[0] <= size[1] else (64, 192)
    bytes_ = torch.randint(
        low, high, (2, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    own = processor(
        images=[Image.fromarray(x.permute(1, 2, 0).numpy()) for x in bytes_], return_tensors="pt"
    ).pixel_values
    prepare = read_preparation(tmp_path, "no")
    ours = prepare(bytes_ / 255, torch.zeros(1))
    assert ours.shape == own.shape == (2, 3, *prepare.result)
    assert ((ours - own).abs().amax((0, 2, 3)) * torch.tensor(prepare.std)).max() < 1.1 * LEVEL


def test_without_resizing_it_is_exact():
    prepare = Preparation((4, 4), (2, 2), "bicubic", (0.5, 0.5, 0.5), (0.5, 0.25, 1.0))
    x = torch.arange(48.0).view(1, 3, 4, 4) / 48
    middle = x[..., 1:3, 1:3] - 0.5
    assert torch.equal(prepare(x, x), middle / torch.tensor([0.5, 0.25, 1.0]).view(3, 1, 1))
    assert prepare(x, x.half()).dtype == torch.half


def test_gradients_reach_every_pixel():
    x = torch.rand(1, 3, 20, 30).mul(0.5).add(0.25).requires_grad_()
    Preparation(8, None, "bilinear", (0.0,) * 3, (1.0,) * 3)(x, x).sum().backward()
    assert (x.grad != 0).all()


def test_older_files_are_read_with_what_the_processors_do_of_themselves(tmp_path):
    clip = written(
        tmp_path, **{**PLAIN, "size": 8}, crop_size=8, feature_extractor_type="CLIPFeatureExtractor"
    )
    assert clip == Preparation(8, (8, 8), "bicubic", (0.5,) * 3, (0.25,) * 3)
    vit = written(tmp_path, **{**PLAIN, "size": 8}, image_processor_type="ViTImageProcessorFast")
    assert vit == Preparation((8, 8), None, "bilinear", (0.5,) * 3, (0.25,) * 3)
    bare = written(tmp_path, **PLAIN, image_processor_type="ViTImageProcessor", do_normalize=False)
    assert bare.mean == (0.0,) * 3 and bare.std == (1.0,) * 3
    as_is = written(tmp_path, **PLAIN, image_processor_type="ViTImageProcessor", do_resize=False)
    assert as_is.size is None and as_is.result is None
    assert as_is(torch.rand(1, 3, 5, 7), torch.zeros(1)).shape == (1, 3, 5, 7)


def test_a_processors_file_of_both_kinds_is_read(tmp_path):
    told = {"image_processor": {**PLAIN, "image_processor_type": "SiglipImageProcessor"}}
    (tmp_path / "processor_config.json").write_text(json.dumps(told))
    assert read_preparation(tmp_path, "no").result == (8, 8)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (
            {"image_processor_type": "ConvNextImageProcessor"},
            r"by ConvNext, of which nothing.*callable_judge",
        ),
        ({"resample": 1}, "with resample 1, which cannot"),
        ({"do_rescale": False}, "with rescale_factor None"),
        ({"rescale_factor": 1 / 127.5}, "with rescale_factor 0.0078"),
        ({"do_pad": True}, "with do_pad, which"),
        ({"size": {"longest_edge": 8}}, "says is not whole: 'height'"),
        ({"image_mean": [0.5]}, "1 channels, where pictures have 3"),
        ({"do_center_crop": True, "crop_size": 9}, r"resized to \(8, 8\) and then cut to \(9, 9\)"),
    ],
)
def test_what_cannot_be_done_is_refused(told, said, tmp_path):
    with pytest.raises(ValueError, match=f"^no: .*{said}"):
        written(tmp_path, **{**PLAIN, "image_processor_type": "ViTImageProcessor", **told})


def test_a_folder_that_does_not_say_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no preprocessor_config.json.*processor.save_pretrained"):
        read_preparation(tmp_path, "no")


def test_what_is_no_picture_is_told():
    with pytest.raises(ValueError, match=r"got \[3, 8, 8\]"):
        check_pictures(torch.rand(3, 8, 8))
    with pytest.raises(ValueError, match=r"torch.uint8; write images.float\(\) / 255"):
        check_pictures(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
