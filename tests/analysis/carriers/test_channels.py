"""A planted clock, a planted carrier; sums that do not depend on how they were batched."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from denoscope import Intervention, When, intervening, load
from denoscope.analysis.carriers.channel_ablation import channels_ablated
from denoscope.analysis.carriers.channels import outlier_channels
from denoscope.analysis.metrics import latent_distance
from denoscope.models.errors import UsageError
from denoscope.models.synthetic.tiny_families import tiny_pixart_alpha, tiny_sd3

TEXTS = ["a red cat", "a dog"]
SITE = "transformer/block.0/resid.post"
ASK: dict[str, Any] = {"seeds": [0, 1], "steps": 3, "guidance": 2.0}


def planted(channel: int, size: Any) -> Intervention:
    """Something large added to one channel behind a block, and taken away again nowhere."""

    def fn(x: torch.Tensor, context: Any) -> torch.Tensor:
        new = x.clone()
        for row in range(len(x)):
            new[row, :, channel] += size(context, row)
        return new

    return Intervention(SITE, fn, When(branch=None))


@pytest.fixture(scope="module")
def dit() -> Any:
    return load(tiny_pixart_alpha())


def test_a_clock_is_found_and_goes_by_the_step(dit: Any) -> None:
    with intervening(dit, planted(3, lambda context, row: 1000.0 + 200 * context.step.index)):
        found = outlier_channels(dit, TEXTS, sites=SITE, **ASK)
    row = found.to_frame().iloc[0]
    assert row["channel"] == 3 == found.top(SITE, 1)[0]
    assert row["ratio"] > 10 and row["one_sign"] == pytest.approx(1) and row["energy_1"] > 0.5
    assert row["by_step"] > 0.99


def test_a_carrier_goes_by_the_run(dit: Any) -> None:
    with intervening(
        dit, planted(5, lambda context, row: 2000.0 if "cat" in context.prompts[row].text else 1000.0)
    ):
        found = outlier_channels(dit, TEXTS, sites=SITE, **ASK)
    row = found.to_frame().iloc[0]
    assert row["channel"] == 5 and row["by_run"] > 0.99


def test_means_do_not_depend_on_the_batch(dit: Any) -> None:
    one, many = (outlier_channels(dit, TEXTS, batch=b, **ASK) for b in (1, 4))
    assert list(one.data) == list(many.data)
    for site in one.data:
        np.testing.assert_allclose(one.data[site], many.data[site], rtol=1e-4, atol=1e-6)


def test_the_mean_of_a_clock_loses_nothing_and_zero_does(dit: Any) -> None:
    plant = planted(3, lambda context, row: 1000.0 + 200 * context.step.index)
    with intervening(dit, plant):
        found = outlier_channels(dit, TEXTS, sites=SITE, **ASK)
        lost = channels_ablated(dit, found, TEXTS, k=1, metric=latent_distance(), **ASK)
    change = -lost.mean().sel(site=SITE)  # the distance grows
    assert (
        float(change.sel(channels="top", way="zero")) > 3 * float(change.sel(channels="top", way="mean")) > 0
    )
    assert float(change.sel(channels="others", way="zero")) > 0
    assert float(change.sel(channels="energy", way="zero")) > 0


def test_picture_and_text_streams_both_have_channels() -> None:
    found = outlier_channels(load(tiny_sd3()), TEXTS[:1], sites="transformer/**/resid.post*", **ASK)
    assert any("@txt" in s for s in found.data) and any("@img" in s for s in found.data)


def test_what_cannot_be_looked_at_is_said(dit: Any) -> None:
    with pytest.raises(UsageError, match="give sites of a stream"):
        outlier_channels(dit, TEXTS, sites="transformer/block.0/self_attn.probs", **ASK)
    with pytest.raises(UsageError, match="give sites of 'transformer'"):
        outlier_channels(dit, TEXTS, sites="text_encoder/**/resid.post", **ASK)
    found = outlier_channels(dit, TEXTS, sites=SITE, **ASK)
    ablate: dict[str, Any] = {**ASK, "metric": latent_distance()}
    with pytest.raises(UsageError, match="another one"):
        channels_ablated(dit, found, TEXTS[:1], **ablate)
    with pytest.raises(UsageError, match="same steps"):
        channels_ablated(dit, found, TEXTS, **{**ablate, "steps": 2})
    with pytest.raises(UsageError, match="k is 99"):
        channels_ablated(dit, found, TEXTS, k=99, **ablate)
    with pytest.raises(UsageError, match="was not looked at"):
        found.top("transformer/block.1/resid.post")
