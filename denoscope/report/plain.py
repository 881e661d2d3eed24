"""Addresses, labels and numbers in words."""

from __future__ import annotations

import math
import re

import xarray as xr

from ..models.site import Site

KINDS = {
    "self_attn.out": "self-attention",
    "cross_attn.out": "cross-attention",
    "joint_attn.out": "joint attention",
    "mlp.out": "MLP",
    "attn_mlp.out": "attention and MLP",
    "resnet.out": "convolutions",
}
PARTS = {
    "unet": "UNet",
    "text_encoder_2": "second text encoder",
    "text_encoder_3": "third text encoder",
}
STREAMS = {"img": "of the picture", "txt": "of the text"}


def plain_part(component: str) -> str:
    """A component in words.

    >>> plain_part("unet"), plain_part("text_encoder_2")
    ('UNet', 'second text encoder')
    """
    return PARTS.get(component, component.replace("_", " "))


def plain_site(address: str) -> str:
    """A site in words.

    >>> plain_site("text_encoder/layer.0/self_attn.out")
    'the self-attention of layer 0'
    """
    site = Site(address)
    return f"the {plain_kind(site)} of {site.block.replace('layer.', 'layer ').replace('block.', 'block ')}"


def plain_kind(site: Site) -> str:
    """What is found at a site, in words; of which stream, where there are two.

    >>> plain_kind(Site("transformer/block.0/mlp.out@txt"))
    'MLP of the text'
    """
    return " ".join([KINDS.get(site.kind, site.kind), *([STREAMS[site.stream]] if site.stream else [])])


def plain_token(label: str) -> str:
    """A token position in words.

    >>> plain_token("9-23:pad"), plain_token("7:cook")
    ('the padding after the text', '“cook”')
    """
    name = label.split(":", 1)[-1]
    known = {"pad": "the padding after the text", "end": "the end token", "start": "the start token"}
    return known.get(name, f"“{name}”")


def plain_window(label: str) -> str:
    """A window of steps in words, counted from 1.

    >>> plain_window("6-11"), plain_window("0")
    ('steps 7–12', 'step 1')
    """
    numbers = [str(int(n) + 1) for n in re.findall(r"\d+", str(label))]
    return f"step{'s' if len(numbers) > 1 else ''} {'–'.join(numbers)}" if numbers else str(label)


def plain_metric(name: str) -> str:
    """A metric in words."""
    if name.startswith("clip_score"):
        return "CLIP score of the pictures with the prompt"
    if name.startswith("text_fit"):
        return "fit of the pictures with the prompt, by the judge"
    return "latent distance to the clean run" if name.startswith("latent_distance") else name


def amount(value: float, proportion: bool) -> str:
    """A number: a proportion as a percentage, with a digit more where it is small.

    >>> amount(0.25, True), amount(0.031, True), amount(0.031, False)
    ('25%', '3.1%', '0.031')
    """
    if not proportion:
        return f"{value:.3f}"
    text = f"{value:.0%}" if abs(value) >= 0.0995 else f"{value:.1%}"
    return text.removeprefix("-") if text == "-0.0%" else text


def with_interval(mean: float, low: float, high: float, proportion: bool) -> str:
    """A number and its interval, if there is one.

    >>> with_interval(0.25, 0.1, 0.5, True), with_interval(0.25, float("nan"), float("nan"), False)
    ('25% (10% to 50%)', '0.250')
    """
    said = amount(mean, proportion)
    if math.isnan(low):  # no interval
        return said
    return f"{said} ({amount(low, proportion)} to {amount(high, proportion)})"


def plain_cost(data: xr.Dataset) -> str:
    """What a causal map cost, and what the published scheme would have."""
    rows, reference = int(data.attrs["rows"]), int(data.attrs["reference_rows"])
    return f"{rows:,} network rows; the published scheme needs {reference:,} for the same scores."
