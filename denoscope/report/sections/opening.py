"""The top of the page: what was asked, the same seeds before and after, the numbers to remember."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..asked import tell_asked
from ..pairs import pairs
from ..plain import plain_site, plain_token
from ..results import Results, Section


def section(results: Results) -> Section:
    """Say what was asked and show the edited prompt with every seed."""
    asked = results.asked
    values = {
        **asked,
        "title": asked["prompt"],
        "facts": _facts(asked, results.about),
        "tiles": _tiles(results),
    }
    asked_outright = results.stages.get("oracle")
    told = [] if asked_outright is None else tell_asked(asked_outright)
    return Section(values, {"hero": pairs(results.stages["effect"], "efficacy")}, told)


def _facts(asked: Mapping[str, Any], about: Mapping[str, Any]) -> list[str]:
    return [
        f"model {asked['model']}",
        f"{len(about['seeds'])} seed{'s' if len(about['seeds']) > 1 else ''}",
        f"{asked['steps']} steps",
        f"guidance {about['guidance']:g}",
        str(about["scheduler"]),
    ]


def _tiles(results: Results) -> list[dict[str, str]]:
    asked, shown = results.asked, results.shown
    tiles = []
    if results.text.proportion:
        best = results.text.ranked().iloc[0]
        where = f"{plain_site(best['site'])} at {plain_token(best['token'])}"
        text = f"of the effect of “{asked['about']}” comes back when only {where} is restored"
        tiles.append({"value": f"{best['mean']:.0%}", "text": text})
    share = results.edit.size() / results.about["parameters"]
    text = "of the model's weights were edited, in closed form, without training"
    tiles.append({"value": f"{share:.2%}", "text": text})
    if "efficacy" in shown:
        after, n = shown["efficacy"]["after"]
        text = f"pictures of the edited prompt now show “{asked['change_to']}”"
        tiles.append({"value": f"{after}/{n}", "text": text})
    if results.looks is not None:
        same, n, *_ = results.looks
        tiles.append({"value": f"{same}/{n}", "text": "pictures of other things look as before at a glance"})
    return tiles
