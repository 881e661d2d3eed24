"""What a run found, in words that are written from its numbers.

A sentence is *weak* where its interval holds 0 (or there is none), or where something went wrong; then it
says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from ..analysis.edit_evaluation.appearance import AT_A_GLANCE
from .causal_map import CausalMap, sure
from .plain import amount, plain_part, plain_site, plain_token, plain_window


@dataclass(frozen=True)
class Finding:
    """One sentence.

    Args:
        text: the sentence.
        weak: whether these runs cannot settle it, or it is bad news.
    """

    text: str
    weak: bool = False


def tell_total(found: CausalMap, about: str) -> Finding:
    """Say how much the word matters at all."""
    mean, low, high = found.total
    text = f"Taking “{about}” out of the prompt changes the {found.metric} by {abs(mean):.3f}"
    if found.proportion:
        least, most = sorted((abs(low), abs(high)))
        return Finding(f"{text} (95% interval {least:.3f} to {most:.3f}).")
    return Finding(
        f"{text}, which is not clearly different from 0: read the causal maps as noise.", weak=True
    )


def tell_encoders(carried: Mapping[str, float], found: CausalMap) -> list[Finding]:
    """Say which of several text encoders carries the word."""
    if len(carried) < 2:
        return []
    first, *others = sorted(carried, key=lambda name: -carried[name])
    rest = ", ".join(f"the {plain_part(name)}: {amount(carried[name], True)}" for name in others)
    text = f"Restoring all that the {plain_part(first)} says brings back {amount(carried[first], True)}"
    return [
        Finding(f"{text} of the effect ({rest}); its states are mapped below.", weak=not found.proportion)
    ]


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
    what = "comes nearest to the clean run" if found.proportion else "counts most"
    said = [_claim(f"In the {found.part}, restoring {where} {what}: {found.say(best)}.", best)]
    if found.proportion:
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


def tell_looks(looks: tuple[int, int, str, float] | None) -> list[Finding]:
    """Say how many pictures of other things look as before, and which changed most."""
    if looks is None:
        return []
    same, n, worst, far = looks
    text = f"Of {n} pictures of other things, {same} look as before at a glance; most changed is “{worst}” "
    text += (
        f"(colour difference {far:.0f}; {AT_A_GLANCE:.0f} is seen at a glance, black and white are at 100)."
    )
    return [Finding(text, weak=same < n)]


def tell_moved(moved: pd.Series) -> Finding:
    """Say how far pixels moved, for edited prompts and for other things."""
    edited, others = moved.get("efficacy", 0.0), moved.get("specificity", 0.0)
    text = f"The edit moves the pixels of the edited prompt by {edited:.1%} of their range on average"
    return Finding(f"{text}, those of other things by {others:.1%}.", weak=bool(others >= edited))


def _claim(text: str, place: pd.Series) -> Finding:
    return Finding(text, weak=not sure(place["low"], place["high"]))
