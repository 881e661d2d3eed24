"""What a run found, in words that are written from its numbers.

A sentence is *weak* where its interval holds 0 (or there is none), or where something went wrong; then it
says so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
import xarray as xr

from ..analysis.mediation.result import Mediation
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


@dataclass(frozen=True)
class Finding:
    """One sentence.

    Args:
        text: the sentence.
        weak: whether these runs cannot settle it, or it is bad news.
    """

    text: str
    weak: bool = False


@dataclass(frozen=True, eq=False)
class CausalMap:
    """A causal map, averaged over prompts, seeds and draws.

    Args:
        cells: ``mean``, ``low`` and ``high`` over (site, token or window).
        share: whether they are shares of the whole effect; else they are in the metric's own units.
        total: the whole effect of the word: mean, low, high.
        metric: what was measured.
    """

    cells: xr.Dataset
    share: bool
    total: tuple[float, float, float]
    metric: str

    @classmethod
    def of(cls, cause: Mediation) -> CausalMap:
        """Average; take shares only where there is clearly a whole to take a share of."""
        found = cause.total()
        mean, low, high = (float(found[k]) for k in ("mean", "low", "high"))
        share = sure(low, high)
        cells = (cause.normalised if share else cause.indirect_effect).interval()
        return cls(cells, share, (mean, low, high), plain_metric(cause.data.attrs["metric"]))

    @property
    def part(self) -> str:
        """The component that the places are in, in words."""
        return plain_part(str(self.cells["site"].values[0]).split("/")[0])

    def ranked(self) -> pd.DataFrame:
        """All places; first the one whose restoration comes nearest to the clean run."""
        frame = self.cells.to_dataframe().reset_index()
        far = (frame["mean"] - 1).abs() if self.share else -frame["mean"]
        return frame.iloc[far.argsort(kind="stable")].reset_index(drop=True)

    def say(self, place: pd.Series) -> str:
        """A number with its interval."""
        mean, low, high = (float(place[k]) for k in ("mean", "low", "high"))
        if pd.isna(low):
            return f"{_amount(mean, self.share)}, a single run without an interval"
        zero = "" if sure(low, high) else ", which holds 0"
        interval = f"{_amount(low, self.share)} to {_amount(high, self.share)}"
        return f"{_amount(mean, self.share)} (95% interval {interval}{zero})"


def sure(low: float, high: float) -> bool:
    """Whether an interval leaves out 0; no interval (NaN) is not sure."""
    return bool(low > 0 or high < 0)


def tell_total(found: CausalMap, about: str) -> Finding:
    """Say how much the word matters at all."""
    mean, low, high = found.total
    text = f"Taking “{about}” out of the prompt changes the {found.metric} by {abs(mean):.3f}"
    if found.share:
        return Finding(f"{text} (95% interval {abs(low):.3f} to {abs(high):.3f}).")
    return Finding(
        f"{text}, which is not clearly different from 0: read the causal maps as noise.", weak=True
    )


def tell_encoders(carried: Mapping[str, float], found: CausalMap) -> list[Finding]:
    """Say which of several text encoders carries the word."""
    if len(carried) < 2:
        return []
    first, *others = sorted(carried, key=lambda name: -carried[name])
    rest = ", ".join(f"the {plain_part(name)}: {_amount(carried[name], True)}" for name in others)
    text = f"Restoring all that the {plain_part(first)} says brings back {_amount(carried[first], True)}"
    return [Finding(f"{text} of the effect ({rest}); its states are mapped below.", weak=not found.share)]


def tell_text(found: CausalMap, about: str) -> list[Finding]:
    """Say which text-encoder state carries the word, and what its own token and other layers do."""
    ranked = found.ranked()
    best = ranked.iloc[0]
    where = f"{plain_site(best['site'])} at {plain_token(best['token'])}"
    said = [
        _claim(f"In the {found.part}, restoring {where} brings back {found.say(best)} of the effect.", best)
    ]
    own = ranked[ranked["role"].str.contains("subject")]
    if "subject" not in best["role"] and len(own):
        top = own.loc[own["mean"].idxmax()]
        text = f"At the word “{about}” itself no state brings back more than {found.say(top)}."
        said.append(_claim(text, top))
    others = ranked[ranked["block"] != best["block"]]
    if len(others):
        top = others.loc[others["mean"].idxmax()]
        said.append(_claim(f"In all other layers, no state brings back more than {found.say(top)}.", top))
    return said


def tell_denoiser(found: CausalMap) -> list[Finding]:
    """Say where in the denoiser the word matters, and whether it is spread out."""
    ranked = found.ranked()
    best = ranked.iloc[0]
    where = f"{plain_site(best['site'])} in {plain_window(best['window'])}"
    said = [_claim(f"In the {found.part}, restoring {where} brings back most: {found.say(best)}.", best)]
    if found.share:
        half = int((ranked["mean"] > 0.5).sum())
        said.append(
            Finding(f"Of {len(ranked)} pairs of layer and window, {half} bring back more than half alone.")
        )
    return said


def tell_effect(shown: dict[str, dict[str, tuple[int, int]]], change_to: str) -> list[Finding]:
    """Say whether the edit worked, and what else it moved.

    Args:
        shown: kind -> state -> (pictures that fit their target best, pictures).
        change_to: what the edited word shall mean.
    """
    said = []
    for kind, start in (("efficacy", "With the edited prompt"), ("generality", "In other wordings")):
        if kind in shown:
            (a, n), (b, _), (c, _) = (shown[kind][s] for s in ("before", "after", "oracle"))
            text = f"{start}, {b} of {n} pictures fit “{change_to}” better than any other candidate"
            text += f" (before the edit {a}; the unedited model asked for “{change_to}”: {c})."
            said.append(Finding(text, weak=b <= a or b < n / 2))
    if "specificity" in shown:
        (a, n), (b, _) = (shown["specificity"][s] for s in ("before", "after"))
        text = f"Of {n} pictures of other things, {b} still fit their own word best (before the edit {a})."
        said.append(Finding(text, weak=b < a))
    return said


def tell_moved(moved: pd.Series) -> Finding:
    """Say how far pixels moved, for edited prompts and for other things."""
    edited, others = moved.get("efficacy", 0.0), moved.get("specificity", 0.0)
    text = f"The edit moves the pixels of the edited prompt by {edited:.1%} of their range on average"
    return Finding(f"{text}, those of other things by {others:.1%}.", weak=bool(others >= edited))


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
    return "latent distance to the clean run" if name.startswith("latent_distance") else name


def _claim(text: str, place: pd.Series) -> Finding:
    return Finding(text, weak=not sure(place["low"], place["high"]))


def _amount(value: float, share: bool) -> str:
    if not share:
        return f"{value:.3f}"
    text = f"{value:.0%}" if abs(value) >= 0.0995 else f"{value:.1%}"
    return text.removeprefix("-") if text == "-0.0%" else text
