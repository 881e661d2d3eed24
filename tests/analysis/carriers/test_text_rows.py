"""All rows are the plain run, none is the empty text; masked rows do nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from denoscope import load, trace
from denoscope.analysis.carriers.text_rows import KINDS, kinds_of, text_rows, with_rows
from denoscope.analysis.metrics import latent_distance
from denoscope.models.errors import NotFoundError, UsageError, WrongTypeError
from denoscope.models.synthetic.tiny_families import tiny_pixart_alpha, tiny_sd3

ASK: dict[str, Any] = {"seeds": [0, 1], "steps": 2, "guidance": 2.0, "metric": latent_distance()}
TEXT = "a red cat"


def test_every_row_has_a_kind_tokenizer_by_tokenizer(tiny: Any) -> None:
    prompt = tiny.encode([TEXT])[0]
    kinds = kinds_of(prompt, "red")
    assert kinds[:6] == ["begin", "words", "subject", "words", "end", "padding"]
    assert set(kinds[6:]) == {"padding"} and len(kinds) == len(prompt.embeds)
    joint = load(tiny_sd3()).encode([TEXT])[0]
    both = kinds_of(joint, "red")
    assert len(both) == len(joint.embeds)
    assert both.count("subject") == len(joint.segments) == 2  # CLIP's red and T5's
    assert "subject" not in kinds_of(prompt, None)


def test_all_rows_are_the_plain_run_and_none_the_empty_text(tiny: Any) -> None:
    kept = {"all": KINDS, "none": (), "words": ("words", "subject"), "but words": ("begin", "end", "padding")}
    found = text_rows(tiny, [TEXT], "red", kept=kept, **ASK)
    assert found.values.dims == ("site", "kept", "prompt", "seed")
    plain, *empty = (
        trace(tiny, [text] * 2, seeds=[0, 1], steps=2, guidance=2.0).latents for text in (TEXT, "")
    )
    apart = (plain - empty[0]).square().flatten(1).mean(1).sqrt()
    got = found.values.sel(site="unet/in/text", prompt=TEXT)
    assert got.sel(kept="all").max() == 0
    assert torch.allclose(torch.tensor(got.sel(kept="none").values).float(), apart, rtol=1e-5)
    assert got.sel(kept="words").min() > 0 and got.sel(kept="but words").min() > 0


def test_rows_of_no_text_stand_exactly_where_the_own_ones_are_not_kept(tiny: Any) -> None:
    prompt, nothing = tiny.encode([TEXT])[0], tiny.encode([""])[0]
    keep = [k == "end" for k in kinds_of(prompt, None)]
    mixed = with_rows(prompt, nothing, keep).embeds
    for row, own in enumerate(keep):
        assert torch.equal(mixed[row], (prompt if own else nothing).embeds[row])


def test_masked_padding_changes_nothing() -> None:
    model = load(tiny_pixart_alpha())
    found = text_rows(model, [TEXT], "cat", kept={"but padding": KINDS[:-1], "padding": KINDS[-1:]}, **ASK)
    values = found.values.sel(prompt=TEXT)
    assert values.sel(kept="but padding").max() == 0 < values.sel(kept="padding").min()


@pytest.mark.parametrize(
    ("kept", "error", "said"),
    [
        ({}, UsageError, "padding alone"),
        ({"x": "padding"}, WrongTypeError, "give a list"),
        ({"x": ["pads"]}, UsageError, "begin, subject, words, end, padding"),
    ],
)
def test_what_cannot_be_kept_is_said(tiny: Any, kept: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        text_rows(tiny, [TEXT], "cat", kept=kept, **ASK)


def test_a_subject_that_is_not_there_is_said(tiny: Any) -> None:
    with pytest.raises(NotFoundError, match="its words are a, red, cat"):
        text_rows(tiny, [TEXT], "dog", **ASK)
