"""One call for several methods gives what each gives by itself."""

from __future__ import annotations

from typing import Any

import pytest
import xarray as xr

from denoscope.analysis import Noise, locate, locogen, trace_denoiser, trace_text
from denoscope.analysis.metrics import latent_distance

ASK: dict[str, Any] = {"seeds": [0], "metric": latent_distance(), "steps": 2}
CROSS = "unet/mid.attn.0.0/cross_attn.out"


def test_each_method_is_its_own_function(tiny: Any) -> None:
    noise, site = {"corruption": Noise(draws=1)}, {"sites": CROSS}
    text = {"kinds": ["mlp.out"], "layers": [0], "tokens": [1]}
    pairs = [
        (locate(tiny, ["a red cat"], "red", **ASK, **noise, **site), 
         trace_denoiser(tiny, ["a red cat"], "red", **ASK, **noise, **site).normalised),
        (locate(tiny, ["a red cat"], "red", method="text", **ASK, **noise, **text),
         trace_text(tiny, ["a red cat"], "red", **ASK, **noise, **text).normalised),
        (locate(tiny, ["a red cat"], "red", method="locogen", **ASK),
         locogen(tiny, ["a red cat"], ["a cat"], **ASK)),
    ]  # fmt: skip
    for found, want in pairs:
        xr.testing.assert_equal(found.mean(), want.mean())


def test_an_unknown_method_is_told_with_near_misses(tiny: Any) -> None:
    with pytest.raises(LookupError, match="no method 'loco' of locating; did you mean 'locogen'"):
        locate(tiny, ["a cat"], "cat", method="loco", **ASK)
    with pytest.raises(LookupError, match="'dog' is not in the prompt"):
        locate(tiny, ["a cat"], "dog", method="locogen", **ASK)
    with pytest.raises(ValueError, match="1 prompts but 2 subjects"):
        locate(tiny, ["a cat"], ["cat", "a"], method="locogen", **ASK)
