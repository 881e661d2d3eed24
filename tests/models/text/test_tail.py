"""The upper layers of a text encoder say what the whole one says, to the bit, whatever acts on them."""

from __future__ import annotations

import pytest
import torch

from denoscope.models.places.hooks import hooked
from denoscope.models.site import Site
from denoscope.models.text.tail import tail
from denoscope.probes.intervene import Intervention, intervening
from tests.models.families.test_families import READING, opened

TEXTS = ["a cat", "a red dog"]


@pytest.mark.parametrize(("name", "encoder"), READING)
@pytest.mark.parametrize("first", [0, 1])
def test_equals_the_whole_encoder_under_a_change(name: str, encoder: str, first: int) -> None:
    model = opened(name)
    if name == "sdxl" and encoder == "text_encoder" and first:
        with pytest.raises(ValueError, match="reads nothing of layer 1 of text_encoder, but of 0 to 0"):
            tail(model, encoder, first, TEXTS)
        return
    part = tail(model, encoder, first, TEXTS)
    site = Site(f"{encoder}/layer.{first}/mlp.out")
    last = f"layer.{first + len(part.layers) - 1}/resid.post" if part.norm is None else "out/embeds"
    seen: list[torch.Tensor] = []
    watch = Intervention(Site(f"{encoder}/{last}"), lambda x, _: seen.append(x.clone()))
    with torch.no_grad():
        with intervening(model, Intervention(site, lambda x, _: x + 1), watch):
            model.encode(TEXTS)
        with hooked(model, [(site, lambda x: (slice(0, len(x)), x + 1))]):
            changed = part.states()
        plain, again = part.states(), part.states()
    assert torch.equal(changed, seen[0])
    assert torch.equal(plain, again) and not torch.equal(changed, plain)


def test_pooled_is_the_text_embedding_that_the_denoiser_reads() -> None:
    for name, encoder in (("flux-dev", "text_encoder"), ("sdxl", "text_encoder_2")):
        model = opened(name)
        part = tail(model, encoder, 1, TEXTS)
        with torch.no_grad():
            got, want = part.pooled(part.states()), [p.pooled for p in model.encode(TEXTS)]
        torch.testing.assert_close(got, torch.stack([w for w in want if w is not None]))
